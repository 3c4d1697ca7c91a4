//! The stress harness: for an engineer who wants figures, and does not take ours.

use atm_tests::opening;
use clap::{Parser, Subcommand};

/// Measures the bank server on this machine.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Generate a bank, open it, and say how long that took and how much memory an account costs
    Open {
        /// How many accounts
        #[arg(long, value_name = "N", default_value_t = 1_000_000)]
        accounts: u64,
    },
}

fn main() {
    match Args::parse().command {
        Command::Open { accounts } => println!("{}", opening::measure(accounts)),
    }
}
