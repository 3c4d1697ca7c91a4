//! `scale accounts` and `scale journal`: durable transactions a second on a bank that has grown, beside one that has not.

use std::time::Duration;

use bank_core::limits::ACCOUNT_CHECKPOINT_ROWS;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::super::load::{Load, Measured, Mix, Payees, Work, make};
use super::super::rounds::OverRounds;
use super::super::seconds;
use super::{Failure, generate, look_into};
use crate::{Server, TestBank};

/// How both are measured.
#[derive(Debug, clap::Args)]
pub(super) struct RoundsArgs {
    /// How often both are measured, one after the other; the median of the ratios is told
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// How long each measurement lasts
    #[arg(long, value_name = "S", default_value = "2", value_parser = seconds)]
    seconds: Duration,
    /// Connections at once, each with one request outstanding
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
}

/// Arguments of `scale accounts`.
#[derive(Debug, clap::Args)]
#[command(
    about = "Throughput on a bank of many accounts, beside one of few",
    long_about = "Throughput on a bank of many accounts, beside one of few.\n\nA session keeps its account, so what reaches all \
accounts is transfers: each transaction pays an account that is drawn at random from all of the bank's. The rounds go on \
until both banks have brought their accounts table up to date with the journal as often as --checkpoints says."
)]
pub(super) struct AccountsArgs {
    /// Accounts of the bank of many
    #[arg(long, value_name = "N", default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    accounts: u64,
    /// Accounts of the bank of few
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    few: u64,
    /// Account checkpoints that both banks must have passed at the end, whatever --rounds says; there is one every 524288 rows
    #[arg(long, value_name = "N", default_value_t = 2)]
    checkpoints: u64,
    #[command(flatten)]
    rounds: RoundsArgs,
}

/// Arguments of `scale journal`.
#[derive(Debug, clap::Args)]
#[command(
    about = "Throughput on a bank with a long journal, beside a new bank",
    long_about = "Throughput on a bank with a long journal, beside a new bank.\n\nOne bank is filled with deposits and withdrawals, \
as fast as it takes them; its server is not started again in between. Then deposits and withdrawals are measured on both."
)]
pub(super) struct JournalArgs {
    /// Journal rows to fill in before measuring
    #[arg(long, value_name = "N", default_value_t = 10_000_000)]
    rows: u64,
    /// Accounts of both banks
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    accounts: u64,
    #[command(flatten)]
    rounds: RoundsArgs,
}

/// `scale accounts`.
pub(super) fn accounts(args: &AccountsArgs) -> Result<Value, Failure> {
    // Who only pays must have enough to pay.
    let many = Side::serve(generate(args.accounts, &["--balance", "1000000"]), args.accounts)?;
    let few = Side::serve(generate(args.few, &["--balance", "1000000"]), args.few)?;
    println!(
        "transfers by {} connections, each to one of all accounts, in rounds of {} s",
        args.rounds.connections,
        args.rounds.seconds.as_secs_f64()
    );
    let labels = [
        format!("{} acc./s", args.accounts),
        format!("{} acc./s", args.few),
    ];
    let transfers = |side: &Side| Load {
        mix: Mix::only(Work::Transfer),
        payees: Payees::All,
        ..Load::new(
            args.rounds.connections as usize,
            side.accounts,
            args.rounds.seconds,
        )
    };
    let mut passed = [0, 0];
    let pairs = alternate(&[&many, &few], &labels, args.rounds.rounds, transfers, || {
        passed = [many.checkpoints_passed()?, few.checkpoints_passed()?];
        Ok(passed.iter().all(|&passed| passed >= args.checkpoints))
    })?;
    let ratio = OverRounds::of_ratios(&pairs);
    println!(
        "{} accounts \u{f7} {} accounts: {ratio}, over {} and {} account checkpoints",
        args.accounts, args.few, passed[0], passed[1]
    );
    Ok(json!({
        "work": "transfers to all accounts", "accounts": args.accounts, "beside_accounts": args.few,
        "account_checkpoints": passed, "figures": figures(&pairs, &ratio, &args.rounds),
    }))
}

/// `scale journal`.
pub(super) fn journal(args: &JournalArgs) -> Result<Value, Failure> {
    let long = Side::serve(generate(args.accounts, &[]), args.accounts)?;
    let new = Side::serve(generate(args.accounts, &[]), args.accounts)?;
    let filled = fill(&long, args.rows)?;
    println!(
        "deposits and withdrawals by {} connections, {} accounts, in rounds of {} s",
        args.rounds.connections,
        args.accounts,
        args.rounds.seconds.as_secs_f64()
    );
    let labels = ["long journal/s".to_owned(), "new journal/s".to_owned()];
    let cash = |side: &Side| {
        Load::new(
            args.rounds.connections as usize,
            side.accounts,
            args.rounds.seconds,
        )
    };
    let pairs = alternate(&[&long, &new], &labels, args.rounds.rounds, cash, || Ok(true))?;
    let ratio = OverRounds::of_ratios(&pairs);
    let rows = [long.rows()?, new.rows()?];
    println!(
        "after {filled} journal rows \u{f7} new journal: {ratio}; in the end {} rows and {}",
        rows[0], rows[1]
    );
    Ok(json!({
        "work": "deposits and withdrawals", "accounts": args.accounts, "rows_before": filled, "rows_after": rows[0],
        "beside_rows_after": rows[1], "figures": figures(&pairs, &ratio, &args.rounds),
    }))
}

/// A bank that is being served.
pub(super) struct Side {
    server: Server,
    bank: TestBank,
    accounts: u64,
    /// The newest row that the `accounts` table had at the beginning.
    checkpoint: u64,
}

impl Side {
    pub(super) fn serve(bank: TestBank, accounts: u64) -> Result<Side, Failure> {
        let mut side = Side {
            server: bank.serve_quietly(),
            bank,
            accounts,
            checkpoint: 0,
        };
        side.checkpoint = side.number("SELECT checkpoint_lsn FROM bank")?;
        Ok(side)
    }

    fn rows(&self) -> Result<u64, Failure> {
        self.number("SELECT max(lsn) FROM journal")
    }

    /// Account checkpoints since the beginning. One begins so many rows after the one before it began.
    pub(super) fn checkpoints_passed(&self) -> Result<u64, Failure> {
        let now = self.number("SELECT checkpoint_lsn FROM bank")?;
        Ok((now - self.checkpoint) / ACCOUNT_CHECKPOINT_ROWS)
    }

    fn number(&self, sql: &str) -> Result<u64, Failure> {
        let number: i64 = look_into(&self.bank.path())?.query_row(sql, [], |row| row.get(0))?;
        Ok(u64::try_from(number)?)
    }

    pub(super) fn server(&self) -> &Server {
        &self.server
    }

    fn measure(&self, runtime: &Runtime, load: &Load) -> Result<Measured, Failure> {
        measure(runtime, &self.server, load)
    }
}

/// Makes a load, and sees to it that no money was lost under it.
pub(super) fn measure(runtime: &Runtime, server: &Server, load: &Load) -> Result<Measured, Failure> {
    Ok(runtime.block_on(make(server.address(), load))?.conserved()?)
}

/// Posts so many rows or somewhat more, says how far it is, and gives how many they are.
fn fill(side: &Side, rows: u64) -> Result<u64, Failure> {
    const SLICE: Duration = Duration::from_secs(2);
    let runtime = runtime()?;
    let (mut filled, mut per_second) = (0, None);
    while filled < rows {
        // The first slice finds out how fast it goes, the last is as long as what is left takes.
        let duration = match per_second {
            None => SLICE / 20,
            Some(per_second) => SLICE.min(Duration::from_secs_f64((rows - filled) as f64 / per_second)),
        };
        let load = Load {
            pipeline: 16,
            seed: filled,
            ..Load::new(64, side.accounts, duration)
        };
        let measured = side.measure(&runtime, &load)?;
        filled += measured.answers;
        per_second = Some(measured.per_second());
        eprintln!(
            "filling the journal: {filled} rows of {rows}, {:.0}/s",
            measured.per_second()
        );
    }
    Ok(filled)
}

/// Measures both in turns, at least `rounds` times and until `enough`, and tells each round.
fn alternate(
    sides: &[&Side; 2],
    labels: &[String; 2],
    rounds: u32,
    load: impl Fn(&Side) -> Load,
    mut enough: impl FnMut() -> Result<bool, Failure>,
) -> Result<Vec<(f64, f64)>, Failure> {
    let runtime = runtime()?;
    let mut pairs = Vec::new();
    println!(
        "{:>5}  {:>18}  {:>18}  {:>5}",
        "round", labels[0], labels[1], "ratio"
    );
    while pairs.len() < rounds as usize || !enough()? {
        let mut per_second = [0.0; 2];
        // Which one is first alternates as well.
        for side in [pairs.len() % 2, (pairs.len() + 1) % 2] {
            let load = Load {
                seed: (pairs.len() as u64) << 32,
                ..load(sides[side])
            };
            per_second[side] = sides[side].measure(&runtime, &load)?.per_second();
        }
        let [of, beside] = per_second;
        pairs.push((of, beside));
        println!(
            "{:>5}  {of:>18.0}  {beside:>18.0}  {:>5.2}",
            pairs.len(),
            of / beside
        );
    }
    Ok(pairs)
}

fn figures(pairs: &[(f64, f64)], ratio: &OverRounds, args: &RoundsArgs) -> Value {
    json!({
        "connections": args.connections, "rounds": pairs.len(), "seconds": args.seconds.as_secs_f64(),
        "per_second": OverRounds::of(pairs.iter().map(|pair| pair.0)).to_json(),
        "beside_per_second": OverRounds::of(pairs.iter().map(|pair| pair.1)).to_json(),
        "ratio": ratio.to_json(),
    })
}

pub(super) fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}
