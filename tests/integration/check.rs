//! `atm-stress check`, small: on the real bank, which it believes, and on one that is broken, which it does not.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::thread;

use atm_tests::{TestBank, program, stderr, stdout};
use bank_core::limits::{MAX_REPLY_BYTES, MAX_REQUEST_BYTES};
use bank_core::protocol::{
    Greeting, Receipt, Reply, ReplyBody, Request, RequestBody, VERSION, decode, encode, split,
};

fn check(arguments: &[&str]) -> Output {
    Command::new(program("atm-stress"))
        .args(["check", "--clients", "6"])
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn the_bank_is_linearizable_and_its_snapshots_add_up_also_when_it_is_killed() {
    let place = TestBank::nowhere();
    let file = place.directory().join("figures.json");
    let arguments = ["--rounds", "20", "--seconds", "1.5", "--kill", "--json"];
    let checked = check(&[&arguments[..], &[file.to_str().unwrap()]].concat());
    assert!(
        checked.status.success(),
        "{}{}",
        stdout(&checked),
        stderr(&checked)
    );
    let verdict = "every history is linearizable, and every snapshot of all balances adds up";
    assert!(stdout(&checked).contains(verdict), "{}", stdout(&checked));
    let figures: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(figures["ok"], true);
    assert_eq!(figures["undecided"], 0);
    for what in [
        "small_calls",
        "large_calls",
        "snapshots",
        "in_doubt",
        "declined",
        "kills",
    ] {
        assert!(figures[what].as_u64().unwrap() > 0, "{what}: {figures}");
    }
}

#[test]
fn snapshots_are_taken_of_another_servers_bank_file() {
    let bank = TestBank::generate(4);
    let server = bank.serve();
    let path = bank.path();
    let arguments = [
        "--server",
        server.address(),
        "--rounds",
        "2",
        "--seconds",
        "0.3",
        "--bank",
    ];
    let checked = check(&[&arguments[..], &[path.to_str().unwrap()]].concat());
    assert!(
        stdout(&checked).contains("every snapshot of all balances adds up"),
        "{}{}",
        stdout(&checked),
        stderr(&checked)
    );
}

/// What is wrong with a [`BrokenBank`], now and then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// A deposit is approved and forgotten.
    LosesADeposit,
    /// A balance is that of some time ago.
    AnswersAnOldBalance,
    /// A transfer does not reach the payee.
    KeepsTheTransfer,
}

/// A small bank behind a real socket, in memory, with as much of the protocol as the check needs.
struct BrokenBank {
    fault: Fault,
    balances: HashMap<u64, i64>,
    rows: HashMap<u64, u64>,
    last_row: u64,
    first: HashMap<[u8; 16], (u64, bool, Receipt)>,
    /// An old balance of each account, with its row.
    old: HashMap<u64, (u64, i64)>,
}

/// One in so many calls goes wrong.
const NOW_AND_THEN: u64 = 40;

impl BrokenBank {
    /// Serves until the test's process ends. Gives where.
    fn serve(fault: Fault) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let bank = Arc::new(Mutex::new(BrokenBank {
            fault,
            balances: (1..=4).map(|account| (account, 100_000)).collect(),
            rows: HashMap::new(),
            last_row: 4,
            first: HashMap::new(),
            old: HashMap::new(),
        }));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let bank = Arc::clone(&bank);
                thread::spawn(move || converse(stream.unwrap(), &bank));
            }
        });
        address
    }

    fn answer(&mut self, account: u64, id: u32, body: &RequestBody<'_>) -> Reply<'static> {
        let row = self.rows.get(&account).copied().unwrap_or(account);
        let wrong = self.last_row.is_multiple_of(NOW_AND_THEN);
        let (txn_id, amount, payee) = match *body {
            RequestBody::Deposit { txn_id, amount } => (txn_id, amount, None),
            RequestBody::Withdraw { txn_id, amount } => (txn_id, -amount, None),
            RequestBody::Transfer { txn_id, to, amount } => (txn_id, -amount, Some(to)),
            _ => {
                let now = (row, self.balances[&account]);
                let old = self.old.insert(account, now).unwrap_or(now);
                let is_old = self.fault == Fault::AnswersAnOldBalance;
                let (lsn, balance) = if is_old { old } else { now };
                let currency = *b"USD";
                let body = ReplyBody::Balance { balance, currency };
                return Reply { id, lsn, body };
            }
        };
        if !self.first.contains_key(&txn_id) {
            self.last_row += 1;
            self.rows.insert(account, self.last_row);
            let before = self.balances[&account];
            let approved = payee != Some(account) && before + amount >= 0;
            let balance = if approved { before + amount } else { before };
            let receipt = Receipt {
                txn_id,
                time: 0,
                amount,
                balance,
                currency: *b"USD",
                head: [7; 32],
            };
            self.first.insert(txn_id, (self.last_row, approved, receipt));
            if !(wrong && self.fault == Fault::LosesADeposit && amount > 0) {
                self.balances.insert(account, balance);
            }
            if let (true, Some(payee)) = (approved, payee) {
                self.rows.insert(payee, self.last_row);
                if !(wrong && self.fault == Fault::KeepsTheTransfer) {
                    *self.balances.get_mut(&payee).unwrap() -= amount;
                }
            }
        }
        let (lsn, approved, receipt) = self.first[&txn_id];
        let is_own = matches!(*body, RequestBody::Transfer { to, .. } if to == account);
        let body = match approved {
            true => ReplyBody::Approved(receipt),
            false => ReplyBody::Declined {
                code: if is_own { 6 } else { 4 },
                message: "No.",
                receipt,
            },
        };
        Reply { id, lsn, body }
    }
}

/// Answers one client until it goes.
fn converse(mut stream: TcpStream, bank: &Mutex<BrokenBank>) {
    let (mut received, mut chunk, mut replies) = (Vec::new(), [0; 4096], Vec::new());
    let (mut account, mut greeted) = (0, false);
    while let Ok(bytes @ 1..) = stream.read(&mut chunk) {
        received.extend_from_slice(&chunk[..bytes]);
        while let Some((body, used)) = split(&received, MAX_REQUEST_BYTES).unwrap() {
            if !greeted {
                greeted = true;
                let greeting = Greeting::Welcome {
                    version: VERSION,
                    server_time: 0,
                    max_request_bytes: MAX_REQUEST_BYTES as u32,
                    max_reply_bytes: MAX_REPLY_BYTES as u32,
                };
                encode(&greeting, &mut replies);
            } else {
                let Request { id, body } = decode(body).unwrap();
                let reply = if let RequestBody::Login { card, .. } = body {
                    account = card.parse().unwrap();
                    let body = ReplyBody::LoggedIn {
                        account,
                        currency: *b"USD",
                        holder: "",
                    };
                    Reply { id, lsn: 0, body }
                } else {
                    bank.lock().unwrap().answer(account, id, &body)
                };
                encode(&reply, &mut replies);
            }
            received.drain(..used);
        }
        if stream.write_all(&std::mem::take(&mut replies)).is_err() {
            return;
        }
    }
}

#[test]
fn a_broken_bank_is_found_out_and_a_whole_one_is_not() {
    for fault in [
        Fault::None,
        Fault::LosesADeposit,
        Fault::AnswersAnOldBalance,
        Fault::KeepsTheTransfer,
    ] {
        let address = BrokenBank::serve(fault);
        for phase in [
            ["--rounds", "60", "--seconds", "0"],
            ["--rounds", "0", "--seconds", "0.4"],
        ] {
            let checked = check(&[&["--server", &address][..], &phase[..]].concat());
            let told = stdout(&checked);
            let (code, words) = match fault {
                Fault::None => (0, "every history is linearizable"),
                _ => (1, "THE ANSWERS CONTRADICT EACH OTHER"),
            };
            assert_eq!(
                checked.status.code(),
                Some(code),
                "{fault:?}, {phase:?}: {told}{}",
                stderr(&checked)
            );
            assert!(told.contains(words), "{fault:?}, {phase:?}: {told}");
            // An engineer must see which answers they are.
            assert_eq!(
                told.contains("client "),
                code == 1,
                "{fault:?}, {phase:?}: {told}"
            );
        }
    }
}

#[test]
fn what_cannot_be_checked_is_explained() {
    let nothing = check(&["--rounds", "0", "--seconds", "0"]);
    assert_eq!(nothing.status.code(), Some(1));
    assert!(
        stderr(&nothing).contains("nothing was asked"),
        "{}",
        stderr(&nothing)
    );
    let bank = TestBank::load("Ken,2468,1\n");
    let server = bank.serve();
    let elsewhere = check(&["--server", server.address()]);
    assert_eq!(elsewhere.status.code(), Some(1));
    assert!(
        stderr(&elsewhere).contains("atm-server generate"),
        "{}",
        stderr(&elsewhere)
    );
}
