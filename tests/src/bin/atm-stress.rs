//! The stress harness: for an engineer who wants figures, and does not take ours.

use std::num::NonZeroUsize;
use std::process::ExitCode;

use atm_tests::stress::{attack, bench, check, echo, fuzz, peers, run, scale, torture};
use clap::{Parser, Subcommand};

/// Loads the bank server, measures it, and checks that the money is all there.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
#[command(
    after_help = "Exit codes: 0 the money is all there, 1 it is not, or it could not be tried, 2 wrong usage."
)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Put a load on a server, tell throughput and latency, and check that the money is conserved
    Run(run::RunArgs),
    /// Measure the bank beside a bare echo server with the same frames, in one run
    Bench(bench::BenchArgs),
    /// Record what every client asks and is told, and decide whether one bank could have said it all
    Check(check::CheckArgs),
    /// Measure the bank beside PostgreSQL and Redis, which do the same work as durably, in one run
    Peers(peers::PeersArgs),
    /// Kill servers and terminals and cut connections at random moments, and check every single transaction
    Torture(torture::TortureArgs),
    /// Measure what growth costs: accounts, journal rows, logins, sessions, opening after a crash
    Scale(scale::ScaleArgs),
    /// Attack the bank as strangers do: slow clients by the thousand, and cards guessed by the time of an answer
    Attack(attack::AttackArgs),
    /// Give everything that reads bytes from outside bytes that nobody would send
    Fuzz(fuzz::FuzzArgs),
    /// Be the echo server of `bench`
    #[command(hide = true)]
    Echo {
        /// Its worker threads [default: as many as the bank server has]
        #[arg(long, value_name = "N")]
        workers: Option<NonZeroUsize>,
    },
}

fn main() -> ExitCode {
    let conserved = match Args::parse().command {
        Command::Run(args) => run::run(&args),
        Command::Bench(args) => bench::run(&args).map(|()| true),
        Command::Check(args) => check::run(&args),
        Command::Peers(args) => peers::run(&args).map(|()| true),
        Command::Torture(args) => torture::run(&args),
        Command::Scale(args) => scale::run(&args).map(|()| true),
        Command::Attack(args) => attack::run(&args).map(|()| true),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Echo { workers } => echo::serve(workers).map(|()| true).map_err(Into::into),
    };
    match conserved {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("atm-stress: {error}");
            ExitCode::FAILURE
        }
    }
}
