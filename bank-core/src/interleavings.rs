//! The bank under many orders of its threads: what must hold whichever of them the journal's thread, the posting
//! threads and whoever closes the bank happen to run in.
//!
//! The bank and its journal are the real ones; the disk is memory. Each test is run some thousands of times, each
//! time in another order (`sync.rs` says how), and a run in which nobody can go on any more is a failure too. A
//! failure prints its order, with which `shuttle::replay` runs it again.
//!
//! Atomics are sequentially consistent here, whatever ordering the code asks for: these tests find no missing
//! `Acquire`. And the slots never run out.
//!
//! `cargo test -p bank-core --features shuttle --lib interleavings`

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use shuttle::Runner;
use shuttle::rand::Rng;
use shuttle::scheduler::{PctScheduler, RandomScheduler};

use crate::bank_file::{BankFileError, CardSecurity, Rotation, create_bank, rotate_pepper};
use crate::card::{CardState, CardStatus};
use crate::cards::PinHash;
use crate::durable::block_on;
use crate::journal::{Batch, Store, Update};
use crate::loading::AccountList;
use crate::sync::Mutex;
use crate::sync::thread::{self, JoinHandle};
use crate::transaction::{Order, Transaction};
use crate::{
    Account, AccountId, Amount, Bank, CardNumber, Currency, Head, Instruction, JournalError, Login,
    LoginError, Lsn, Moment, Money, Peppers, Pin, PinProfile, Posted, Registration, Row, TerminalId,
    TerminalProof, Timestamp, TxnId, Unblocked,
};

/// Runs `test` in many orders of its threads, giving it a path for the few files that a bank cannot do without.
///
/// Orders chosen evenly at random find what goes wrong often. Orders with only a few changes of thread at chosen
/// places (PCT) find what needs one thread to fall far behind.
fn explore(test: impl Fn(&Path) + Send + Sync + 'static) {
    explore_some(10_000, test);
}

/// The same in so many orders of each kind, for what takes longer. Reading a file needs more of a stack than these threads
/// have otherwise.
fn explore_some(orders: usize, test: impl Fn(&Path) + Send + Sync + 'static) {
    const CHANGES: usize = 3;

    let mut config = shuttle::Config::new();
    config.stack_size = 512 * 1024;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bank.db");
    let test = Arc::new(move || test(&path));
    let again = Arc::clone(&test);
    Runner::new(RandomScheduler::new(orders), config.clone()).run(move || test());
    Runner::new(PctScheduler::new(CHANGES, orders), config).run(move || again());
}

/// What the memory store was given, which is what a crash would leave.
#[derive(Default)]
struct Disk {
    rows: Vec<Row>,
    terminals: Vec<TerminalId>,
    /// The card, once a login has changed it.
    card: Option<CardState>,
    /// Its PIN's hash, once it was made anew.
    pin: Option<Arc<PinHash>>,
    refused_logins: usize,
    stray_logins: usize,
    failed: bool,
    closed: bool,
}

/// A store in memory, of which each commit and step of work may be interrupted by other threads.
struct MemoryStore {
    disk: Arc<Mutex<Disk>>,
    /// How many commits succeed; the one after them fails, and leaves nothing on the disk.
    commits: usize,
    /// Whether something was committed since the last step of work.
    work: bool,
}

impl Store for MemoryStore {
    fn commit(&mut self, batch: &Batch) -> Result<Option<Head>, BankFileError> {
        let mut disk = self.disk.lock();
        assert!(
            !disk.failed && !disk.closed,
            "the store is called no more after its end"
        );
        if self.commits == 0 {
            disk.failed = true;
            return Err(BankFileError::Damaged {
                what: "for the test".into(),
            });
        }
        self.commits -= 1;
        self.work = !batch.rows.is_empty();
        for row in &batch.rows {
            assert_eq!(row.lsn.get(), disk.rows.len() as u64 + 1, "Lsns are dense");
            disk.rows.push(*row);
        }
        for update in &batch.updates {
            match update {
                Update::Terminal(terminal) => disk.terminals.push(terminal.id),
                Update::Card { state, .. } => disk.card = Some(*state),
                Update::RefusedLogin => disk.refused_logins += 1,
                Update::StrayLogin => disk.stray_logins += 1,
                Update::Pin { pin, .. } => disk.pin = Some(Arc::clone(pin)),
                _ => panic!("nothing here changes anything else"),
            }
        }
        Ok(None)
    }

    fn maintain(&mut self) -> Result<bool, BankFileError> {
        Ok(self.work)
    }

    fn close(&mut self) -> Result<(), BankFileError> {
        let mut disk = self.disk.lock();
        assert!(!disk.failed && !disk.closed, "a store is closed once");
        disk.closed = true;
        Ok(())
    }
}

/// A bank of two accounts with 10.00 each, and its disk.
struct Site {
    bank: Bank,
    disk: Arc<Mutex<Disk>>,
    /// How many transaction ids were made. That nobody waits for it keeps it out of the orders.
    ids: AtomicU8,
    /// How many logins were told that they are refused. As above.
    refused: AtomicUsize,
}

impl Site {
    fn new(path: &Path) -> Arc<Site> {
        Site::failing_after(usize::MAX, path)
    }

    /// A site whose disk takes so many commits and fails then.
    fn failing_after(commits: usize, path: &Path) -> Arc<Site> {
        let disk = Arc::new(Mutex::default());
        let store = MemoryStore {
            disk: Arc::clone(&disk),
            commits,
            work: false,
        };
        Arc::new(Site {
            bank: Bank::over(store, path, accounts()),
            disk,
            ids: AtomicU8::new(0),
            refused: AtomicUsize::new(0),
        })
    }

    /// Starts a thread at the site. It is no scoped one: in shuttle 0.9.9 the last thread of a scope to end wakes
    /// the one that opened it from whatever that waits for.
    fn spawn<R: Send + 'static>(
        self: &Arc<Site>,
        run: impl FnOnce(&Site) -> R + Send + 'static,
    ) -> JoinHandle<R> {
        let site = Arc::clone(self);
        thread::spawn(move || run(&site))
    }

    /// An order with an id of its own.
    fn order(&self, transaction: Transaction) -> Order {
        Order {
            txn_id: txn_id(self.ids.fetch_add(1, Ordering::Relaxed)),
            terminal: "ATM-1".parse().unwrap(),
            card: None,
            transaction,
        }
    }

    fn post_order(&self, number: u64, order: &Order) -> Result<Posted, JournalError> {
        let slot = self.bank.journal().reserve_blocking()?;
        let account = self.bank.account(id(number)).unwrap();
        let now = Moment::at(Timestamp::default());
        Ok(self.bank.post(slot, &account, order, now))
    }

    fn post(&self, number: u64, transaction: Transaction) -> Result<Row, JournalError> {
        match self.post_order(number, &self.order(transaction))? {
            Posted::Decided(row) => Ok(row),
            other => panic!("a new id is decided: {other:?}"),
        }
    }

    /// Asks for an order whose id others may use, and waits until what became of it may be told: gives its row.
    fn ask_again(&self, number: u64, order: &Order) -> Result<Row, JournalError> {
        let lsn = match self.post_order(number, order)? {
            Posted::Decided(row) => row.lsn,
            Posted::Seen(lsn) => lsn,
            other => panic!("the account remembers its ids: {other:?}"),
        };
        self.settle(lsn)?;
        Ok(self.disk.lock().rows[lsn.get() as usize - 1])
    }

    /// Posts and waits, as a client's request does.
    fn ask(&self, number: u64, transaction: Transaction) -> Result<Row, JournalError> {
        let row = self.post(number, transaction)?;
        self.settle(row.lsn)?;
        assert_eq!(self.disk.lock().rows[row.lsn.get() as usize - 1], row);
        Ok(row)
    }

    /// Asks for a balance and waits until it may be shown.
    fn look(&self, number: u64) -> Result<(), JournalError> {
        self.settle(self.bank.account(id(number)).unwrap().balance().lsn)
    }

    /// Makes a terminal known and waits until that may be answered.
    fn register(&self, terminal: &str) -> Result<(), JournalError> {
        let terminal = terminal.parse().unwrap();
        let slot = self.bank.journal().reserve_blocking()?;
        let now = Timestamp::default();
        let update = self
            .bank
            .admit_terminal(slot, terminal, TerminalProof::None, Registration::BySelf, now)
            .unwrap();
        let answer = self.bank.journal().update_durable(update).wait();
        assert_eq!(answer.is_ok(), self.disk.lock().terminals.contains(&terminal));
        answer
    }

    /// Waits for a row. Unless the bank is dropped meanwhile, what is answered is what came to pass.
    fn settle(&self, lsn: Lsn) -> Result<(), JournalError> {
        let journal = self.bank.journal();
        let answer = journal.durable(lsn).wait();
        let on_disk = self.disk.lock().rows.len() as u64 >= lsn.get();
        assert_eq!(
            answer.is_ok(),
            on_disk,
            "row {lsn} was answered {answer:?}, on the disk: {on_disk}"
        );
        assert_eq!(answer.is_ok(), journal.durable_lsn() >= lsn);
        if answer.is_err() {
            assert!(
                journal.reserve_blocking().is_err(),
                "who was told of the end may append no more"
            );
        }
        answer
    }

    /// Shows the card with a PIN. If it is refused, that is on the disk by then.
    fn login(&self, pin: &str) -> Option<Login> {
        let refused_before = self.refused.load(Ordering::Relaxed);
        match self.bank.login(&card(), &Pin::new(pin.as_bytes()).unwrap()) {
            Ok(login) => Some(login),
            Err(LoginError::Refused) => {
                assert!(self.disk.lock().refused_logins > refused_before);
                self.refused.fetch_add(1, Ordering::Relaxed);
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn unblock(&self) -> Unblocked {
        let instruction = Instruction::new("op".into(), None, TxnId::generate()).unwrap();
        self.bank.unblock_card(&instruction, &card()).unwrap().0
    }

    /// Follows each account through the rows on the disk, and gives the accounts as they then are.
    fn replay(&self) -> Vec<Account> {
        let mut replayed = accounts();
        let index = |id: AccountId| id.get() as usize - 1;
        for row in &self.disk.lock().rows {
            assert_eq!(row.prev_lsn, replayed[index(row.account)].last_lsn);
            if let (Some((payee, _)), Some(side)) = (row.payee_change(), row.contra_side) {
                assert_eq!(side.prev_lsn, replayed[index(payee)].last_lsn);
            }
            for (id, change) in row.changes() {
                replayed[index(id)].apply(&change);
            }
        }
        replayed
    }
}

fn card() -> CardNumber {
    "1".parse().unwrap()
}

/// Makes a bank file of one card, with PIN 0001, to be read from. What logins change goes to the memory store, so the test must
/// keep the card in use.
fn make_card(path: &Path) {
    if path.exists() {
        return;
    }
    let security = CardSecurity {
        profile: PinProfile::Fast,
        peppers: &Peppers::read_or_create(&path.with_extension("pepper")).unwrap(),
    };
    let list = AccountList::generate(1, Currency::USD, Money::ZERO);
    let (accounts, cards) = list
        .hash_pins(security.peppers, security.profile, &|_| ())
        .unwrap();
    let moment = Moment::at(Timestamp::default());
    create_bank(path, false, &security, moment, &accounts, &cards, &|_| ()).unwrap();
}

fn accounts() -> Vec<Account> {
    let account = |number| Account {
        balance: Money::from_minor(1000),
        ..Account::new(id(number), Currency::USD)
    };
    vec![account(1), account(2)]
}

fn id(number: u64) -> AccountId {
    AccountId::new(number).unwrap()
}

/// Not a generated one, which would be another in each run.
fn txn_id(number: u8) -> TxnId {
    let mut bytes = *b"\0\0\0\0\0\0\x70\0\x80\0\0\0\0\0\0\0";
    bytes[15] = number;
    TxnId::from_bytes(bytes).unwrap()
}

fn deposit() -> Transaction {
    Transaction::Deposit {
        amount: Amount::from_minor(100).unwrap(),
    }
}

fn transfer_to(number: u64) -> Transaction {
    Transaction::Transfer {
        to: id(number),
        amount: Amount::from_minor(300).unwrap(),
    }
}

#[test]
fn what_is_answered_is_on_disk_and_in_order() {
    explore(|path| {
        let site = Site::new(path);
        let threads = [
            // The two transfers lock the same accounts, coming from opposite ends.
            site.spawn(|site| site.ask(1, transfer_to(2)).map(drop)),
            site.spawn(|site| site.ask(2, transfer_to(1)).map(drop)),
            site.spawn(|site| site.ask(1, deposit()).and_then(|_| site.register("ATM-1"))),
            site.spawn(|site| {
                site.look(1)?;
                site.ask(2, deposit())?;
                site.look(1)?;
                site.register("ATM-1")
            }),
        ];
        for thread in threads {
            thread.join().unwrap().unwrap();
        }
        assert_eq!(site.disk.lock().rows.len(), 4);
        assert_eq!(site.bank.journal().durable_lsn().get(), 4);
        let replayed = site.replay();
        for account in &replayed {
            let served = site.bank.account(account.id).unwrap().balance();
            assert_eq!((served.balance, served.lsn), (account.balance, account.last_lsn));
        }
        assert_eq!(replayed[0].balance.minor() + replayed[1].balance.minor(), 2200);
    });
}

#[test]
fn of_those_who_ask_the_same_at_once_all_are_told_the_one_outcome() {
    explore(|path| {
        let site = Site::new(path);
        let (order, other) = (site.order(transfer_to(2)), site.order(deposit()));
        // The terminal gives up what it has just asked for: the order and its fence race for the id, too.
        let given_up = Order {
            transaction: Transaction::GiveUp,
            ..order
        };
        let threads = [
            site.spawn(move |site| site.ask_again(1, &order)),
            site.spawn(move |site| site.ask_again(1, &order)),
            site.spawn(move |site| site.ask_again(1, &given_up)),
            site.spawn(move |site| {
                site.ask_again(1, &other)?;
                site.ask_again(1, &order)
            }),
        ];
        let told = threads.map(|thread| thread.join().unwrap().unwrap());
        assert!(told.iter().all(|row| *row == told[0]), "{told:?}");
        assert_eq!(
            site.disk.lock().rows.len(),
            2,
            "the outcome and the other order's"
        );
        site.replay();
    });
}

#[test]
fn a_repeat_of_what_is_not_durable_yet_is_answered_when_it_is_or_not_at_all() {
    explore(|path| {
        let site = Site::failing_after(shuttle::rand::thread_rng().gen_range(0..3), path);
        let order = site.order(deposit());
        let ask = move |site: &Site| site.ask_again(1, &order);
        let threads = [
            site.spawn(ask),
            site.spawn(ask),
            site.spawn(|site| site.ask(1, deposit())),
        ];
        let answers = threads.map(|thread| thread.join().unwrap());
        if let [Ok(first), Ok(second), _] = &answers {
            assert_eq!(first, second);
        }
        let again = ask(&site);
        for answer in &answers[..2] {
            assert!(
                answer.is_err() || again.is_err() || answer.as_ref().ok() == again.as_ref().ok(),
                "{answers:?}, then {again:?}"
            );
        }
        let with_id = |row: &&Row| row.txn_id == Some(order.txn_id);
        assert!(site.disk.lock().rows.iter().filter(with_id).count() <= 1);
        site.replay();
    });
}

#[test]
fn after_a_failed_commit_nothing_more_is_answered_and_everybody_is_told() {
    explore(|path| {
        let site = Site::failing_after(shuttle::rand::thread_rng().gen_range(0..4), path);
        let failed = |answer: &Result<(), JournalError>| matches!(answer, Err(JournalError::Failed(_)));
        let told = site.spawn(|site| block_on(site.bank.journal().ended()));
        let threads = [
            site.spawn(|site| site.ask(1, deposit()).and_then(|_| site.register("ATM-1"))),
            site.spawn(|site| site.ask(2, transfer_to(1)).map(drop)),
            site.spawn(|site| site.look(1).and_then(|()| site.ask(2, deposit()).map(drop))),
        ];
        let answers = threads.map(|thread| thread.join().unwrap());
        assert!(answers.iter().all(|answer| answer.is_ok() || failed(answer)));
        if answers.iter().any(failed) {
            assert!(failed(&site.bank.journal().reserve_blocking().map(drop)));
        }
        // The disk may have failed with nobody waiting for it, or not at all.
        let closed = site.bank.close();
        let disk_failed = site.disk.lock().failed;
        assert_eq!(failed(&closed), disk_failed);
        assert_eq!(failed(&Err(told.join().unwrap())), disk_failed);
        site.replay();
    });
}

#[test]
fn what_races_with_closing_is_committed_or_refused() {
    explore(|path| {
        let site = Site::new(path);
        let early = site.post(1, deposit()).unwrap();
        let close = move |site: &Site| {
            site.bank.close().unwrap();
            let disk = site.disk.lock();
            assert!(disk.closed && disk.rows.first() == Some(&early));
            drop(disk);
            site.post(1, deposit()).map(drop)
        };
        let threads = [
            site.spawn(close),
            site.spawn(close),
            site.spawn(|site| site.ask(1, deposit()).and_then(|_| site.register("ATM-1"))),
            site.spawn(|site| {
                site.register("ATM-2")
                    .and_then(|()| site.ask(2, deposit()).map(drop))
            }),
        ];
        site.settle(early.lsn).unwrap();
        let answers = threads.map(|thread| thread.join().unwrap());
        assert!(
            answers[..2].iter().all(Result::is_err),
            "nothing is taken after closing"
        );
        assert!(
            answers
                .iter()
                .all(|answer| matches!(answer, Ok(()) | Err(JournalError::Closed)))
        );
        site.replay();
    });
}

#[test]
fn dropping_the_bank_tells_those_who_still_wait() {
    explore(|path| {
        let site = Site::new(path);
        let disk = Arc::clone(&site.disk);
        let threads = [1, 2].map(|number| {
            let row = site.post(number, deposit()).unwrap();
            let durable = site.bank.journal().durable(row.lsn);
            let disk = Arc::clone(&disk);
            thread::spawn(move || {
                // It may be on the disk with nobody told of it, as after a crash, but not the other way round.
                if durable.wait().is_ok() {
                    assert_eq!(disk.lock().rows[row.lsn.get() as usize - 1], row);
                }
            })
        });
        drop(site);
        assert!(!disk.lock().closed, "nobody closed the bank");
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn of_four_guesses_at_once_three_are_looked_at_and_all_are_on_disk_when_they_are_answered() {
    explore_some(500, |path| {
        make_card(path);
        let site = Site::new(path);
        let session = site.login("0001").unwrap();
        let guesses = [(); 4].map(|()| site.spawn(|site| site.login("9999").is_none()));
        assert!(
            guesses
                .map(|guess| guess.join().unwrap())
                .iter()
                .all(|refused| *refused)
        );
        assert!(site.login("0001").is_none());
        let disk = site.disk.lock();
        assert_eq!((disk.refused_logins, disk.stray_logins), (5, 2));
        let blocked = CardState {
            tries: 3,
            status: CardStatus::Blocked,
        };
        assert_eq!(disk.card, Some(blocked));
        assert!(session.blocked().is_some());
    });
}

#[test]
fn guesses_a_login_and_an_unblocking_at_once_leave_a_count_that_holds() {
    explore_some(500, |path| {
        make_card(path);
        let site = Site::new(path);
        let session = site.login("0001").unwrap();
        let threads = [
            site.spawn(|site| drop((site.login("9999"), site.login("9999")))),
            site.spawn(|site| drop((site.login("9999"), site.login("9999")))),
            site.spawn(|site| drop(site.login("0001"))),
            site.spawn(|site| _ = site.unblock()),
        ];
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let (state, stray) = {
            let disk = site.disk.lock();
            (disk.card.unwrap(), disk.stray_logins)
        };
        assert_eq!(state.status == CardStatus::Blocked, state.tries == 3);
        // As many more as the count on the disk says, and none besides.
        for _ in state.tries..3 {
            assert!(site.login("9999").is_none());
        }
        assert_eq!(site.disk.lock().stray_logins, stray, "all of them were looked at");
        assert!(site.login("0001").is_none());
        assert_eq!(site.disk.lock().stray_logins, stray + 1);
        assert!(session.blocked().is_some());
        assert_eq!(site.unblock(), Unblocked::WasBlocked);
        assert!(site.login("0001").unwrap().blocked().is_none());
        assert!(session.blocked().is_some());
    });
}

#[test]
fn a_login_with_the_old_pin_does_not_undo_a_change_that_it_overlaps() {
    explore_some(500, |path| {
        let path = &path.with_file_name("outdated.db");
        let pepper = path.with_extension("pepper");
        if !path.exists() {
            make_card(path);
            // So that each good login makes the hash anew.
            rotate_pepper(path, &pepper, Rotation::AddKey, None).unwrap();
        }
        let site = Site::new(path);
        let (old, new) = ("0001", "7391");
        let pin = |digits: &str| Pin::new(digits.as_bytes()).unwrap();
        let overlapping = site.spawn(move |site| drop(site.login(old)));
        let session = site.login(old).unwrap();
        site.bank.change_pin(&session, &pin(old), &pin(new)).unwrap();
        overlapping.join().unwrap();
        let on_disk = site.disk.lock().pin.clone().unwrap();
        let opens = |digits| {
            let peppers = Peppers::read(&pepper).unwrap();
            peppers
                .verify(&pin(digits), &on_disk.hash, on_disk.pepper_id)
                .unwrap()
        };
        assert!(opens(new) && !opens(old));
        assert!(site.login(old).is_none() && site.login(new).is_some());
    });
}
