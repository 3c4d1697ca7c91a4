//! All that a bank, or what passes for one, says to a terminal on one connection.
//!
//! The terminal's client never panics and always ends; and once it has been told what it does not understand, it asks
//! nothing more on that connection.

use std::io::{self, Write};
use std::net::{Shutdown, TcpListener};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;

use atm_cli::connection::{Connection, ConnectionError};
use bank_core::{AccountId, Amount, CardNumber, TerminalId, TxnId};

/// Requests that are made on a connection, if it stays open.
const REQUESTS: usize = 3;

/// The first byte tells which request is made; the others are what the bank says.
pub fn answers(bytes: &[u8]) {
    static BANK: OnceLock<Mutex<Bank>> = OnceLock::new();
    let Some((&request, said)) = bytes.split_first() else {
        return;
    };
    // Whoever panicked here has left nothing half done.
    let bank = BANK
        .get_or_init(|| Mutex::new(Bank::start()))
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    bank.says
        .send(said.to_vec())
        .expect("the bank lasts as long as the process");
    let terminal = TerminalId::new("ATM-1").expect("a terminal's id");
    let Ok(mut client) = Connection::connect(&bank.address, terminal) else {
        return;
    };
    for _ in 0..REQUESTS {
        let answered = ask(&mut client, request);
        if !client.is_open() {
            assert!(answered.is_err());
            let asked = client.ping();
            assert!(matches!(asked, Err(ConnectionError::NotSent(_))), "{asked:?}");
        }
    }
}

fn ask(client: &mut Connection, request: u8) -> Result<(), ConnectionError> {
    let account = AccountId::new(1001).expect("an account's number");
    let card = CardNumber::new("Ken").expect("a card's number");
    let txn_id = TxnId::from_bytes(*b"\x01\x7f\x22\xe2\x79\xb0\x7c\xc3\x98\xc4\xdc\x0c\x0c\x07\x39\x8f")
        .expect("a UUID of version 7");
    let amount = Amount::from_minor(2000).expect("an amount");
    // In the order of the protocol's forms.
    match request % 13 {
        0 => client.ping(),
        1 => client.login(&card, "2468").map(drop),
        2 => client.logout(),
        3 => client.balance().map(drop),
        4 => client.deposit(txn_id, amount).map(drop),
        5 => client.withdraw(txn_id, amount).map(drop),
        6 => client.transfer(txn_id, account, amount).map(drop),
        7 => client.reverse(account, txn_id).map(drop),
        8 => client.resolve(account, txn_id).map(drop),
        9 => client.advice(account, txn_id, amount).map(drop),
        10 => client.statement(10).map(drop),
        11 => client.change_pin("2468", "1357"),
        _ => client.totals().map(drop),
    }
}

/// Listens to nobody, and says what it is given.
struct Bank {
    address: String,
    says: Sender<Vec<u8>>,
}

impl Bank {
    fn start() -> Bank {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let (says, to_say) = channel::<Vec<u8>>();
        thread::spawn(move || {
            for said in to_say {
                // A client that has heard enough hangs up before the end.
                let _ = listener.accept().and_then(|(mut stream, _)| {
                    stream.write_all(&said)?;
                    stream.shutdown(Shutdown::Write)?;
                    io::copy(&mut stream, &mut io::sink())
                });
            }
        });
        Bank { address, says }
    }
}
