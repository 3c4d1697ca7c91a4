//! `scale chain`: what the hash chain costs where all commits are made, beside the same commits without it.

use std::time::{Duration, Instant};

use bank_core::chain::{Chain, Head};
use bank_core::row::{Contra, SystemAccount};
use bank_core::{
    AccountId, CardId, Currency, Kind, Lsn, Moment, Money, Outcome, Row, TerminalId, Timestamp, TxnId,
};
use rusqlite::{Connection, params};
use serde_json::{Value, json};

use super::super::rounds::OverRounds;
use super::super::seconds;
use super::{Failure, generate};
use crate::TestBank;

/// Arguments of `scale chain`.
#[derive(Debug, clap::Args)]
#[command(
    about = "What the hash chain costs: commits of rows with it, beside the same without it",
    long_about = "What the hash chain costs: commits of rows with it, beside the same without it.\n\nBoth are bare loops that insert \
rows as the journal has them and commit, on one thread, with the same settings of SQLite: one with a head computed and stored for each commit, one \
without. That is all that the journal's thread does for the chain, and none of what a server does besides, so that a server is slowed down by less."
)]
pub(super) struct ChainArgs {
    /// How often both are measured
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// How long each measurement lasts
    #[arg(long, value_name = "S", default_value = "1", value_parser = seconds)]
    seconds: Duration,
}

/// Rows in a commit: of one client who waits, of 64 clients, and of many more.
const ROWS: [u64; 3] = [1, 64, 512];

/// `scale chain`.
pub(super) fn run(args: &ChainArgs) -> Result<Value, Failure> {
    let bank = generate(1, &[]);
    println!(
        "{:>15}  {:>12}  {:>15}  {:>22}",
        "rows in a commit", "with rows/s", "without rows/s", "with \u{f7} without"
    );
    let mut figures = Vec::new();
    for rows in ROWS {
        let mut pairs = Vec::new();
        for round in 0..args.rounds {
            let mut per_second = [0.0; 2];
            let with_is_second = usize::from(round % 2 == 1);
            for which in [with_is_second, 1 - with_is_second] {
                per_second[which] = Loop::new(&bank, which)?.per_second(rows, which == 0, args.seconds)?;
            }
            pairs.push((per_second[0], per_second[1]));
        }
        let (with, without) = (
            OverRounds::of(pairs.iter().map(|pair| pair.0)),
            OverRounds::of(pairs.iter().map(|pair| pair.1)),
        );
        let ratio = OverRounds::of_ratios(&pairs);
        println!(
            "{rows:>15}  {:>12.0}  {:>15.0}  {ratio:>22}",
            with.median, without.median
        );
        figures.push(json!({
            "rows": rows, "with_per_second": with.to_json(), "without_per_second": without.to_json(), "ratio": ratio.to_json(),
        }));
    }
    Ok(json!({ "commits": figures }))
}

/// A database with the bank file's tables of rows and commits.
struct Loop(Connection);

impl Loop {
    fn new(bank: &TestBank, which: usize) -> rusqlite::Result<Loop> {
        let path = bank.directory().join(format!("chain-{which}.db"));
        let _ = std::fs::remove_file(&path);
        let connection = Connection::open(path)?;
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0))?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "wal_autocheckpoint", 0)?;
        let original = Connection::open(bank.path())?;
        let mut tables = original.prepare(
            "SELECT sql FROM sqlite_schema WHERE name IN ('journal', 'commits') AND type = 'table'",
        )?;
        let mut found = tables.query([])?;
        while let Some(table) = found.next()? {
            connection.execute_batch(&table.get::<_, String>(0)?)?;
        }
        Ok(Loop(connection))
    }

    fn per_second(&self, rows: u64, chained: bool, duration: Duration) -> rusqlite::Result<f64> {
        let mut begin = self.0.prepare("BEGIN IMMEDIATE")?;
        let mut commit = self.0.prepare("COMMIT")?;
        let mut insert = self.0.prepare(
            "INSERT INTO journal VALUES (?1, ?2, ?3, 1, 0, ?4, ?5, -1, ?6, ?7, ?8, ?9, NULL, NULL, NULL, ?10, NULL, NULL)",
        )?;
        let mut insert_head = self.0.prepare("INSERT INTO commits VALUES (?1, 0, ?2)")?;
        let mut chain = Chain::after(Head::FIRST);
        let mut row = typical();
        let started = Instant::now();
        let mut lsn = 0;
        while started.elapsed() < duration {
            begin.execute([])?;
            for _ in 0..rows {
                lsn += 1;
                row.lsn = Lsn::new(lsn);
                row.prev_lsn = Lsn::new(lsn - 1);
                insert.execute(params![
                    lsn as i64,
                    row.moment.time.millis(),
                    row.moment.date.days(),
                    row.txn_id.map(TxnId::to_bytes).unwrap_or_default(),
                    row.account.get() as i64,
                    row.terminal.as_ref().map(TerminalId::as_str),
                    row.amount.minor(),
                    row.balance.minor(),
                    (lsn - 1) as i64,
                    row.card.map(|card| card.get() as i64),
                ])?;
                if chained {
                    chain.add_row(&row);
                }
            }
            if let Some(head) = chain.seal() {
                insert_head.execute(params![lsn as i64, &head.0[..]])?;
            }
            commit.execute([])?;
        }
        Ok(lsn as f64 / started.elapsed().as_secs_f64())
    }
}

/// A deposit, as there are many.
fn typical() -> Row {
    Row {
        lsn: Lsn::ZERO,
        moment: Moment::at(Timestamp::from_millis(1_795_219_200_000)),
        kind: Kind::Deposit,
        outcome: Outcome::Approved,
        txn_id: Some(TxnId::generate()),
        account: AccountId::new(77_777).expect("a number above zero"),
        contra: Contra::System(SystemAccount::Cash),
        terminal: Some(TerminalId::new("STRESS").expect("a terminal's id")),
        amount: Money::from_minor(5000),
        balance: Money::from_minor(105_000),
        prev_lsn: Lsn::ZERO,
        contra_side: None,
        original: None,
        card: CardId::new(77_777),
        action: None,
        period: None,
        currency: Currency::USD,
    }
}
