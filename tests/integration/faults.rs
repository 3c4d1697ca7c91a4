//! A bank on a disk that fails or loses power at every single step of its commits.

use std::path::Path;

use atm_tests::fault_vfs::{Fault, FaultDisk};
use bank_core::bank_file::{self, CardSecurity, CheckpointPolicy};
use bank_core::loading::AccountList;
use bank_core::transaction::Decline;
use bank_core::{
    AccountHandle, AccountId, Amount, Bank, Currency, Fate, JournalError, Lsn, Moment, Money, Order, Outcome,
    Peppers, Pin, PinProfile, Posted, Repeat, Row, SettlingError, TerminalId, Transaction, TxnId,
};

const ACCOUNTS: u64 = 3;

/// What clients were told.
#[derive(Default)]
struct Told {
    /// The balance of an account after a row.
    balances: Vec<(AccountId, Lsn, Money)>,
    /// What became of an order.
    outcomes: Vec<(AccountId, Order, Row)>,
    /// What was reversed, and by which row.
    reversed: Vec<(AccountId, Order, Row)>,
    /// What will never be done.
    given_up: Vec<(AccountId, Order)>,
}

struct Site {
    directory: tempfile::TempDir,
    disk: FaultDisk,
}

impl Site {
    /// A fresh bank on a watched disk.
    fn new() -> Site {
        let directory = tempfile::tempdir().unwrap();
        let bank = directory.path().join("bank.db");
        let peppers = Peppers::read_or_create(&directory.path().join("pepper")).unwrap();
        let list = AccountList::generate(ACCOUNTS, Currency::USD, Money::from_minor(1000));
        let (accounts, cards) = list.hash_pins(&peppers, PinProfile::Fast, &|_| ()).unwrap();
        let security = CardSecurity {
            profile: PinProfile::Fast,
            peppers: &peppers,
        };
        bank_file::create_bank(&bank, false, &security, Moment::now(), &accounts, &cards, &|_| ()).unwrap();
        Site {
            disk: FaultDisk::watch(directory.path()),
            directory,
        }
    }

    fn open(&self) -> Result<Bank, bank_file::BankFileError> {
        open(self.directory.path(), self.directory.path())
    }

    /// Opens the bank as a machine would find it after its power had gone.
    fn after_power_cut(&self, seed: Option<u64>) -> (tempfile::TempDir, Bank) {
        let image = tempfile::tempdir().unwrap();
        self.disk.write_crash_image(image.path(), seed).unwrap();
        let bank = open(image.path(), self.directory.path()).expect("a bank opens after a power cut");
        (image, bank)
    }
}

/// Checkpoints of both kinds are made all the time, so that the steps of a life are theirs, too.
fn open(bank: &Path, pepper: &Path) -> Result<Bank, bank_file::BankFileError> {
    let policy = CheckpointPolicy {
        account_checkpoint_rows: 2,
        account_checkpoint_slice: 1,
        wal_checkpoint_bytes: 4 * 4096,
    };
    Bank::open_with(
        &bank.join("bank.db"),
        Peppers::read(&pepper.join("pepper")).unwrap(),
        policy,
    )
}

fn id(number: u64) -> AccountId {
    AccountId::new(number).unwrap()
}

/// The life of a bank: it is opened, serves customers one after the other, and is closed. Gives what they were
/// told, and whether all went well to the end.
fn serve_customers(site: &Site) -> (Told, bool) {
    let mut told = Told::default();
    let Ok(bank) = site.open() else {
        return (told, false);
    };
    let served = serve_each(&bank, &mut told);
    let closed = bank.close();
    (told, served.is_ok() && closed.is_ok())
}

fn order(transaction: Transaction) -> Order {
    Order {
        txn_id: TxnId::generate(),
        terminal: "ATM-1".parse::<TerminalId>().unwrap(),
        card: None,
        transaction,
    }
}

fn deposit(minor: i64) -> Order {
    let amount = Amount::from_minor(minor).unwrap();
    order(Transaction::Deposit { amount })
}

/// Posts an order whose id is new, and waits until its row is durable.
fn post(bank: &Bank, account: &AccountHandle, order: &Order) -> Result<Row, JournalError> {
    let slot = bank.journal().reserve_blocking()?;
    let Posted::Decided(row) = bank.post(slot, account, order, Moment::now()) else {
        panic!("a new id is decided");
    };
    bank.journal().durable(row.lsn).wait().map(|()| row)
}

/// The answer of what settles, unless the journal has ended.
fn settled<T>(result: Result<T, SettlingError>) -> Result<T, JournalError> {
    result.map_err(|error| match error {
        SettlingError::Journal(error) => error,
        other => panic!("{other}"),
    })
}

fn serve_each(bank: &Bank, told: &mut Told) -> Result<(), JournalError> {
    let login = bank.login(&"1".parse().unwrap(), &Pin::new(b"0001").unwrap());
    login.map_err(|error| match error {
        bank_core::LoginError::Journal(error) => error,
        _ => JournalError::Closed,
    })?;
    for round in 0..6u64 {
        let account = bank.account(id(round % ACCOUNTS + 1)).unwrap();
        let amount = Amount::from_minor(10 + round as i64).unwrap();
        let transaction = match round % 3 {
            0 => Transaction::Deposit { amount },
            1 => Transaction::Withdraw { amount },
            _ => Transaction::Transfer { to: id(1), amount },
        };
        let order = order(transaction);
        let row = post(bank, &account, &order)?;
        told.balances.push((account.id(), row.lsn, row.balance));
        told.outcomes.push((account.id(), order, row));
        let balance = account.balance();
        bank.journal().durable(balance.lsn).wait()?;
        told.balances.push((account.id(), balance.lsn, balance.balance));
    }
    let account = bank.account(id(1)).unwrap();
    let lost = deposit(1);
    let fate = bank.resolve(&account, lost.txn_id, lost.terminal, Moment::now());
    let Fate::Never(lsn) = settled(fate)? else {
        panic!("it was never asked for");
    };
    bank.journal().durable(lsn).wait()?;
    told.given_up.push((account.id(), lost));
    let (_, first, _) = told.outcomes[0];
    let fate = bank.reverse(&account, first.txn_id, first.terminal, Moment::now());
    let Fate::Reversed(reversal) = settled(fate)? else {
        panic!("a deposit can be undone");
    };
    bank.journal().durable(reversal.lsn).wait()?;
    told.reversed.push((account.id(), first, reversal));
    Ok(())
}

/// Everything told is in the bank; what is asked for again is answered as before; the books balance; and the bank goes on
/// from there.
fn check(directory: &Path, bank: &Bank, told: &Told, context: &str) {
    for &(account, lsn, balance) in &told.balances {
        let handle = bank.account(account).unwrap();
        let (now, lines) = bank.statement(&handle, 100).unwrap();
        let line = lines.iter().find(|line| line.row.lsn == lsn);
        let line = line.unwrap_or_else(|| panic!("{context}: row {lsn}, which was acknowledged, is lost"));
        assert_eq!(line.side.balance, balance, "{context}: row {lsn}");
        assert_eq!(now.balance, lines[0].side.balance, "{context}: account {account}");
    }
    for (account, order, row) in &told.outcomes {
        let account = bank.account(*account).unwrap();
        let slot = bank.journal().reserve_blocking().unwrap();
        let posted = bank.post(slot, &account, order, Moment::now());
        let repeat = bank.first_outcome(&account, order, posted).unwrap();
        assert_eq!(repeat, Repeat::Outcome(*row), "{context}: asked for again");
    }
    for (account, order) in &told.given_up {
        let account = bank.account(*account).unwrap();
        let slot = bank.journal().reserve_blocking().unwrap();
        let posted = bank.post(slot, &account, order, Moment::now());
        let repeat = bank.first_outcome(&account, order, posted).unwrap();
        assert!(
            matches!(repeat, Repeat::Outcome(row) if row.outcome == Outcome::Declined(Decline::GivenUp)),
            "{context}: {repeat:?}"
        );
    }
    for (account, order, reversal) in &told.reversed {
        let account = bank.account(*account).unwrap();
        let fate = bank.reverse(&account, order.txn_id, order.terminal, Moment::now());
        assert_eq!(fate.unwrap(), Fate::Reversed(*reversal), "{context}");
    }
    let account = bank.account(id(1)).unwrap();
    let before = account.balance().balance;
    let row = post(bank, &account, &deposit(1)).unwrap();
    assert_eq!(row.balance.minor(), before.minor() + 1, "{context}");
    bank.close().unwrap();
    let proof = bank_file::verify(&directory.join("bank.db")).unwrap();
    assert!(proof.holds(), "{context}: {:?}", proof.problems);
}

/// A life's last steps are those of SQLite removing a log that is empty and copied: whether they fail is not told,
/// and does not matter. How many steps a life has before varies with what happens to share a commit.
fn assert_most(noticed: u64, steps: u64) {
    assert!(
        noticed * 4 >= steps * 3,
        "only {noticed} failures at {steps} steps were noticed"
    );
}

/// Of several lives the shortest: how often a checkpoint goes on while nobody asks for anything depends on the moment.
fn steps_of_a_life() -> u64 {
    let live = || {
        let site = Site::new();
        let (told, well) = serve_customers(&site);
        assert!(well && told.outcomes.len() == 6 && told.reversed.len() == 1);
        site.disk.steps()
    };
    (0..5).map(|_| live()).min().unwrap_or(0)
}

#[test]
fn the_power_may_go_before_any_step() {
    let steps = steps_of_a_life();
    let mut noticed = 0;
    for step in 1..=steps {
        let site = Site::new();
        site.disk.cut_power_at(step);
        let (told, well) = serve_customers(&site);
        noticed += u64::from(!well);
        for seed in [None, Some(step), Some(step + 1000)] {
            let (image, bank) = site.after_power_cut(seed);
            let context = format!("power cut before step {step} of {steps}, seed {seed:?}");
            check(image.path(), &bank, &told, &context);
        }
    }
    assert_most(noticed, steps);
}

/// One error, at any step, of either kind: nothing above what is durable is answered, nothing is retried, and
/// whoever opens the bank next, the machine never having gone down, serves what was acknowledged.
#[test]
fn any_step_may_fail_once_and_that_is_final() {
    let steps = steps_of_a_life();
    for fault in [Fault::IoError, Fault::Full] {
        let mut noticed = 0;
        for step in 1..=steps {
            let site = Site::new();
            site.disk.fail_once_at(step, fault);
            let (told, well) = serve_customers(&site);
            let context = format!("{fault:?} at step {step} of {steps}");
            noticed += u64::from(!well);
            // From here on the disk is well, also if that life was over before the step came.
            let Site { directory, disk } = site;
            drop(disk);
            let bank =
                open(directory.path(), directory.path()).unwrap_or_else(|error| panic!("{context}: {error}"));
            check(directory.path(), &bank, &told, &context);
        }
        assert_most(noticed, steps);
    }
}

#[test]
fn after_a_failed_commit_nothing_more_is_answered_although_the_disk_is_well_again() {
    let site = Site::new();
    let peppers = || Peppers::read(&site.directory.path().join("pepper")).unwrap();
    // With the checkpoints of ordinary life, of which none is under way here.
    let bank = Bank::open(&site.directory.path().join("bank.db"), peppers()).unwrap();
    let account = bank.account(id(1)).unwrap();
    let post = || post(&bank, &account, &deposit(5));
    let durable = post().unwrap();
    site.disk.fail_once_at(site.disk.steps() + 1, Fault::IoError);
    assert!(matches!(post(), Err(JournalError::Failed(_))));
    let steps = site.disk.steps();
    // What is in memory is not told either: it depends on a row that is not durable.
    let balance = account.balance();
    assert!(balance.lsn > durable.lsn);
    assert!(matches!(
        bank.journal().durable(balance.lsn).wait(),
        Err(JournalError::Failed(_))
    ));
    assert!(matches!(
        bank.statement(&account, 10),
        Err(bank_core::bank::StatementError::Journal(_))
    ));
    assert!(matches!(post(), Err(JournalError::Failed(_))));
    assert!(matches!(
        bank.login(&"1".parse().unwrap(), &Pin::new(b"0001").unwrap()),
        Err(bank_core::LoginError::Journal(_))
    ));
    assert!(bank.close().is_err());
    drop(bank);
    assert_eq!(
        site.disk.steps(),
        steps,
        "after the failure not a byte was written, nor a closing checkpoint made"
    );
    let bank = site.open().unwrap();
    assert_eq!(bank.account(id(1)).unwrap().balance().balance, durable.balance);
}

/// A row whose sync failed is still in the log. Whoever opens the bank next may serve it, so it must be made durable
/// before: else the next power cut takes back what a customer was told.
#[test]
fn what_is_served_after_a_failure_is_on_disk_before_it_is_served() {
    // Some step of a commit is its sync: then the row is written, and the commit fails all the same.
    for step in 1..=8 {
        let site = Site::new();
        let bank = open(site.directory.path(), site.directory.path()).unwrap();
        let account = bank.account(id(1)).unwrap();
        site.disk.fail_once_at(site.disk.steps() + step, Fault::IoError);
        let _ = post(&bank, &account, &deposit(5));
        drop((account, bank));
        // The machine goes on, the process is new, and the disk is well.
        let bank = site.open().or_else(|_| site.open()).unwrap();
        let told = bank.account(id(1)).unwrap().balance();
        let (_image, after) = site.after_power_cut(None);
        assert!(
            after.account(id(1)).unwrap().balance().lsn >= told.lsn,
            "step {step}: what was told is lost"
        );
    }
}
