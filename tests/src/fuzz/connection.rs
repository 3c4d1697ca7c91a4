//! All that a client says to the bank on one connection, from the first byte to its hanging up.
//!
//! Whatever it is, what the bank answers is whole frames, a customer on another connection goes on undisturbed and his
//! balance stays his, and at the end the books balance.
//!
//! The bank goes on from one input to the next, as banks do: an input may fail because of those before it, which the same seed
//! makes again.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::panic;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};

use atm_cli::connection::{Connection, Outcome};
use atm_server::server::Service;
use bank_core::bank_file::{self, CardSecurity, ExistingNames};
use bank_core::limits::{MAX_REPLY_BYTES, READ_BUFFER_BYTES};
use bank_core::loading::AccountList;
use bank_core::protocol::{Greeting, Reply, decode, split};
use bank_core::{Amount, Bank, CardNumber, JournalError, Moment, Peppers, PinProfile, TerminalId, TxnId};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// The first three customers are for anybody to try; nobody finds the card and the account of the last by chance.
const ACCOUNTS: &str = "card,holder,pin,account,currency,balance\n\
    Ken,Ken,2468,1001,USD,100.50\n\
    Jill,Jill,1357,1002,USD,50.00\n\
    Yen,Yen,1111,1003,JPY,300\n\
    4929 8170 3345 6604 81,Honest,918273645546,719463502186647,USD,0.00\n";

/// Inputs after which a bank is ended, checked, and replaced by a new one, so that it does not grow for ever.
const INPUTS_OF_A_BANK: u64 = 20_000;

static SITE: Mutex<Option<Site>> = Mutex::new(None);

/// Panics in whatever thread: the server's threads keep theirs to themselves.
static PANICS: AtomicU64 = AtomicU64::new(0);

/// The bytes as the client sends them.
pub fn connection(bytes: &[u8]) {
    // As much as a socket takes without being read, so that nobody waits for the other.
    let bytes = &bytes[..bytes.len().min(READ_BUFFER_BYTES)];
    let mut place = SITE.lock().unwrap_or_else(PoisonError::into_inner);
    // Taken, so that the next input has a new one if this one fails.
    let mut site = place.take().unwrap_or_else(Site::open);
    site.converse(bytes);
    site.honest_goes_on();
    if site.inputs < INPUTS_OF_A_BANK {
        *place = Some(site);
    } else {
        site.close();
    }
}

/// Ends the bank and proves its books.
pub fn finish() {
    let site = SITE.lock().unwrap_or_else(PoisonError::into_inner).take();
    site.into_iter().for_each(Site::close);
}

struct Site {
    directory: TempDir,
    runtime: Runtime,
    address: String,
    stop: oneshot::Sender<&'static str>,
    server: JoinHandle<Result<(), JournalError>>,
    honest: Connection,
    inputs: u64,
    panics: u64,
}

impl Site {
    fn open() -> Site {
        static COUNT: Once = Once::new();
        COUNT.call_once(|| {
            let others = panic::take_hook();
            panic::set_hook(Box::new(move |panic| {
                PANICS.fetch_add(1, Ordering::SeqCst);
                others(panic);
            }));
        });
        let directory = super::files::directory();
        let path = directory.path().join("bank.db");
        let peppers = Peppers::random().expect("randomness");
        let list = AccountList::from_csv(ACCOUNTS.as_bytes(), |_, _| Ok(ExistingNames::default()));
        let (accounts, cards) = list
            .expect("the list is good")
            .hash_pins(&peppers, PinProfile::Fast, &|_| ())
            .expect("PINs are hashed");
        let security = CardSecurity {
            profile: PinProfile::Fast,
            peppers: &peppers,
        };
        bank_file::create_bank(&path, false, &security, Moment::now(), &accounts, &cards, &|_| ())
            .expect("a bank is made");
        let bank = Arc::new(Bank::open(&path, peppers).expect("the bank opens"));
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime
            .block_on(TcpListener::bind("127.0.0.1:0"))
            .expect("a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let (stop, stopped) = oneshot::channel();
        let shutdown = async { stopped.await.unwrap_or("the fuzzer has ended") };
        let server = runtime.spawn(atm_server::server::run(
            listener,
            bank,
            Service::on_loopback(16),
            None,
            None,
            shutdown,
        ));
        let terminal = TerminalId::new("HONEST").expect("a terminal's id");
        let mut honest = Connection::connect(&address, terminal).expect("the bank answers");
        let card = CardNumber::new("4929 8170 3345 6604 81").expect("a card's number");
        honest
            .login(&card, "918273645546")
            .expect("the login is accepted");
        Site {
            directory,
            runtime,
            address,
            stop,
            server,
            honest,
            inputs: 0,
            panics: PANICS.load(Ordering::SeqCst),
        }
    }

    /// Says it all, hears what the bank says, and leaves.
    fn converse(&mut self, bytes: &[u8]) {
        let mut stream = TcpStream::connect(&self.address).expect("the bank accepts");
        stream.set_nodelay(true).expect("a socket");
        // In two parts, so that what is cut is put together again.
        let (first, second) = bytes.split_at(bytes.len() / 2);
        let mut heard = Vec::new();
        // A bank that has heard enough may have hung up.
        let _ = stream
            .write_all(first)
            .and_then(|()| stream.write_all(second))
            .and_then(|()| stream.shutdown(Shutdown::Write))
            .and_then(|()| stream.read_to_end(&mut heard));
        let mut rest = &heard[..];
        let mut greeted = false;
        while let Some((body, used)) =
            split(rest, MAX_REPLY_BYTES).expect("the bank's frames are short enough")
        {
            if greeted {
                decode::<Reply<'_>>(body).expect("the bank answers with replies");
            } else {
                decode::<Greeting<'_>>(body).expect("the bank greets first");
            }
            greeted = true;
            rest = &rest[used..];
        }
        assert!(rest.is_empty(), "the bank's last frame is not whole: {rest:?}");
    }

    fn honest_goes_on(&mut self) {
        assert_eq!(PANICS.load(Ordering::SeqCst), self.panics, "the bank panicked");
        self.inputs += 1;
        let cent = Amount::from_minor(1).expect("an amount");
        let deposited = self.honest.deposit(TxnId::generate(), cent);
        let Ok(Outcome::Approved(_, receipt)) = deposited else {
            panic!("the honest customer was disturbed: {deposited:?}")
        };
        assert_eq!(
            receipt.balance, self.inputs as i64,
            "somebody else moved his money"
        );
    }

    fn close(self) {
        drop(self.honest);
        // A server that has ended already says why below.
        let _ = self.stop.send("the fuzzer checks the books");
        let ended = self.runtime.block_on(self.server);
        ended
            .expect("the server does not panic")
            .expect("the journal does not fail");
        let proof = bank_file::verify(&self.directory.path().join("bank.db")).expect("the bank can be read");
        assert!(proof.holds(), "{:#?}", proof.problems);
    }
}
