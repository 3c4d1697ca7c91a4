//! `scale recovery`: how long a bank takes to open after kill -9, beside the least that it must do: reading the rows that its
//! `accounts` table does not have yet.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::scope;
use std::time::{Duration, Instant};

use bank_core::bank_file::{self, CheckpointPolicy};
use bank_core::{AccountId, Amount, Bank, Moment, Order, Peppers, Posted, TerminalId, Transaction, TxnId};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use rusqlite::Connection;
use serde_json::{Value, json};

use super::super::rounds::OverRounds;
use super::{Failure, generate};
use crate::program;

/// Arguments of `scale recovery`.
#[derive(Debug, clap::Args)]
#[command(
    about = "Opening a bank after kill -9, beside reading its new journal rows from SQLite",
    long_about = "Opening a bank after kill -9, beside reading its new journal rows from SQLite.\n\nA process posts deposits and \
withdrawals to a bank whose accounts table is not brought up to date meanwhile, and is killed. Copies of what it leaves are then \
opened as a server does (recovering SQLite's log, loading the accounts, replaying the rows), in turns with a bare reading of \
every column of those rows from a copy that SQLite has recovered already. The copies are synced before, and in the page cache."
)]
pub(super) struct RecoveryArgs {
    /// Journal rows past the account checkpoint
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    rows: u64,
    /// Accounts of the bank, all of which opening loads as well
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    accounts: u64,
    /// How often both are measured; medians are told
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
}

/// Arguments of the process that is killed.
#[derive(Debug, clap::Args)]
pub(super) struct PostArgs {
    #[arg(long)]
    bank: PathBuf,
    #[arg(long)]
    rows: u64,
    #[arg(long)]
    accounts: u64,
}

/// `scale recovery`.
pub(super) fn run(args: &RecoveryArgs) -> Result<Value, Failure> {
    let bank = generate(args.accounts, &[]);
    post_and_kill(&bank.path(), args)?;
    let wal_bytes = fs::metadata(log_of(&bank.path()))?.len();
    println!(
        "{} accounts, {} rows past the account checkpoint, {} MiB of them in SQLite's log",
        args.accounts,
        args.rows,
        wal_bytes >> 20
    );
    println!(
        "{:>5}  {:>9}  {:>9}  {:>5}",
        "round", "opening s", "reading s", "ratio"
    );
    let mut pairs = Vec::new();
    for round in 1..=args.rounds {
        let opening = opening(&bank.path(), args.accounts)?;
        let reading = reading(&bank.path(), args.rows)?;
        let (of, beside) = (opening.as_secs_f64(), reading.as_secs_f64());
        pairs.push((of, beside));
        println!("{round:>5}  {of:>9.3}  {beside:>9.3}  {:>5.2}", of / beside);
    }
    let ratio = OverRounds::of_ratios(&pairs);
    println!("opening after kill -9 \u{f7} reading the rows: {ratio}");
    Ok(json!({
        "rows": args.rows, "accounts": args.accounts, "log_bytes": wal_bytes, "rounds": args.rounds,
        "opening_seconds": OverRounds::of(pairs.iter().map(|pair| pair.0)).to_json(),
        "reading_seconds": OverRounds::of(pairs.iter().map(|pair| pair.1)).to_json(),
        "ratio": ratio.to_json(),
    }))
}

/// Has a process post the rows, and kills it as soon as they are durable.
fn post_and_kill(bank: &Path, args: &RecoveryArgs) -> Result<(), Failure> {
    let mut process = Command::new(program("atm-stress"))
        .args(["scale", "post", "--bank"])
        .arg(bank)
        .args([
            "--rows",
            &args.rows.to_string(),
            "--accounts",
            &args.accounts.to_string(),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    let read = BufReader::new(process.stdout.take().expect("standard output is piped")).read_line(&mut line);
    process.kill()?;
    process.wait()?;
    read?;
    if line.trim_end() == POSTED {
        Ok(())
    } else {
        Err("the process that was to post the rows has failed".into())
    }
}

/// What the process says when all is durable.
const POSTED: &str = "posted";

/// Posts rows to a bank that makes no account checkpoint, says that they are durable, and waits to be killed.
pub(super) fn post(args: &PostArgs) -> Result<Value, Failure> {
    // So many customers at once as make good use of each commit, and no more.
    const THREADS: u64 = 8;
    let policy = CheckpointPolicy {
        account_checkpoint_rows: u64::MAX,
        ..CheckpointPolicy::default()
    };
    let bank = Bank::open_with(&args.bank, peppers_of(&args.bank)?, policy)?;
    scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|n| {
                let rows = args.rows / THREADS + u64::from(n < args.rows % THREADS);
                let bank = &bank;
                scope.spawn(move || post_some(bank, rows, args.accounts, StdRng::seed_from_u64(n)))
            })
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().expect("these threads do not panic"))
    })?;
    println!("{POSTED}");
    io::stdout().flush()?;
    // Its end is the end of the program that wants to kill this one.
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(Value::Null)
}

fn post_some(bank: &Bank, rows: u64, accounts: u64, mut random: StdRng) -> Result<(), Failure> {
    let terminal = TerminalId::new("STRESS")?;
    let mut newest = None;
    for n in 0..rows {
        let account = bank
            .account(AccountId::new(random.random_range(1..=accounts))?)
            .ok_or("the bank has fewer accounts than it was made with")?;
        let amount = Amount::from_minor(random.random_range(1..=100)).expect("it is more than zero");
        let order = Order {
            txn_id: TxnId::generate(),
            terminal,
            card: None,
            transaction: match n % 2 {
                0 => Transaction::Deposit { amount },
                _ => Transaction::Withdraw { amount },
            },
        };
        let slot = bank.journal().reserve_blocking()?;
        match bank.post(slot, &account, &order, Moment::now()) {
            Posted::Decided(row) => newest = Some(row.lsn),
            other => return Err(format!("a new transaction was not decided: {other:?}").into()),
        }
    }
    Ok(newest.map_or(Ok(()), |lsn| bank.journal().durable(lsn).wait())?)
}

/// The time to open a copy as a server does.
fn opening(bank: &Path, accounts: u64) -> Result<Duration, Failure> {
    let copy = Copy::of(bank)?;
    let peppers = peppers_of(bank)?;
    let started = Instant::now();
    let opened = Bank::open(&copy.path, peppers)?;
    let opening = started.elapsed();
    if opened.account_count() as u64 != accounts {
        return Err(format!("{} accounts were opened, not {accounts}", opened.account_count()).into());
    }
    Ok(opening)
}

/// The time to read the rows from a copy that SQLite has recovered already.
fn reading(bank: &Path, rows: u64) -> Result<Duration, Failure> {
    let copy = Copy::of(bank)?;
    Connection::open(&copy.path)?.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    let started = Instant::now();
    let connection = Connection::open(&copy.path)?;
    let mut select = connection
        .prepare("SELECT * FROM journal WHERE lsn > (SELECT checkpoint_lsn FROM bank) ORDER BY lsn")?;
    let columns = select.column_count();
    let mut found = select.query([])?;
    let mut read = 0;
    while let Some(row) = found.next()? {
        for column in 0..columns {
            black_box(row.get_ref(column)?);
        }
        read += 1;
    }
    let reading = started.elapsed();
    if read != rows {
        return Err(format!("{read} rows are past the account checkpoint, not {rows}").into());
    }
    Ok(reading)
}

/// A copy of what a killed process has left, as it would lie there after a while: on disk and in the page cache.
struct Copy {
    path: PathBuf,
    _directory: tempfile::TempDir,
}

impl Copy {
    fn of(bank: &Path) -> Result<Copy, Failure> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("bank.db");
        // Not the log's index: whoever comes first after a crash makes it anew.
        for (from, to) in [(bank.to_owned(), path.clone()), (log_of(bank), log_of(&path))] {
            fs::copy(&from, &to).map_err(|error| format!("copying {}: {error}", from.display()))?;
            File::open(&to)?.sync_all()?;
        }
        Ok(Copy {
            path,
            _directory: directory,
        })
    }
}

/// SQLite's write-ahead log of a bank.
fn log_of(bank: &Path) -> PathBuf {
    let mut name = bank.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

fn peppers_of(bank: &Path) -> Result<Peppers, Failure> {
    Ok(Peppers::read(&bank_file::beside(bank, "pepper"))?)
}
