//! `atm-stress scale`: what growth costs. Each command sets what is large beside what is small, or what the bank does beside
//! the least that any program would have to do, in alternation in one run, and tells their ratio.
//!
//! The banks are made in the temporary directory and served by servers of their own, so whatever else the machine does
//! meanwhile shows in the spread of the rounds, not in the ratio.

mod chain;
mod logins;
mod memory;
mod recovery;
mod tail;
mod throughput;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

use atm_cli::connection::Connection;
use bank_core::{CardNumber, TerminalId};
use rusqlite::OpenFlags;

use super::{Failure, with_figures};
use crate::{Server, TestBank};

/// Arguments of `scale`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The banks are made in the temporary directory: set TMPDIR to a place on the disk that is to be measured, \
with room for them (10 million accounts are 2.2 GB, 10 million journal rows 1 GB)."
)]
pub struct ScaleArgs {
    #[command(subcommand)]
    what: What,
    /// Write the figures to a file, as JSON
    #[arg(long, value_name = "FILE", global = true)]
    json: Option<PathBuf>,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Throughput on a bank of many accounts, beside one of few
    Accounts(throughput::AccountsArgs),
    /// Throughput on a bank with a long journal, beside a new bank
    Journal(throughput::JournalArgs),
    /// The latest answers at a share of the greatest rate, beside an echo server's
    Tail(tail::TailArgs),
    /// Logins beside bare PIN checks on all cores, and what a storm of them does to those who are logged in
    Logins(logins::LoginsArgs),
    /// Memory that accounts and idle sessions take, and the time to open a bank
    Memory(memory::MemoryArgs),
    /// Opening a bank after kill -9, beside reading its new journal rows from SQLite
    Recovery(recovery::RecoveryArgs),
    /// What the hash chain costs: commits of rows with it, beside the same without it
    Chain(chain::ChainArgs),
    /// Be the process that `recovery` kills
    #[command(hide = true)]
    Post(recovery::PostArgs),
}

/// Measures one thing, tells it on standard output, and writes it to a file if one is named.
///
/// # Errors
/// If it could not be measured, or money was lost meanwhile.
pub fn run(args: &ScaleArgs) -> Result<(), Box<dyn Error>> {
    with_figures(args.json.as_deref(), || match &args.what {
        What::Accounts(args) => throughput::accounts(args),
        What::Journal(args) => throughput::journal(args),
        What::Tail(args) => tail::run(args),
        What::Logins(args) => logins::run(args),
        What::Memory(args) => memory::run(args),
        What::Recovery(args) => recovery::run(args),
        What::Chain(args) => chain::run(args),
        What::Post(args) => recovery::post(args),
    })
}

/// Makes a bank, and says so if it will take a while.
fn generate(accounts: u64, arguments: &[&str]) -> TestBank {
    // Building the program is not generating.
    crate::program("atm-server");
    if accounts > 100_000 {
        eprintln!("generating a bank of {accounts} accounts");
    }
    TestBank::generate_with(accounts, arguments)
}

/// A session of the customer of a generated bank's account.
fn session(server: &Server, account: u64) -> Result<Connection, Failure> {
    let mut connection = Connection::connect(server.address(), TerminalId::new("STRESS")?)?;
    log_in(&mut connection, account)?;
    Ok(connection)
}

fn log_in(connection: &mut Connection, account: u64) -> Result<(), Failure> {
    let card = CardNumber::new(&account.to_string())?;
    connection.login(&card, &format!("{:04}", account % 10_000))?;
    Ok(())
}

/// The file, for looking at it while it is being served.
fn look_into(bank: &Path) -> rusqlite::Result<rusqlite::Connection> {
    rusqlite::Connection::open_with_flags(bank, OpenFlags::SQLITE_OPEN_READ_ONLY)
}

/// Does nothing until then.
fn pause_until(then: Instant) {
    while let Some(left) = then
        .checked_duration_since(Instant::now())
        .filter(|left| !left.is_zero())
    {
        std::thread::park_timeout(left);
    }
}
