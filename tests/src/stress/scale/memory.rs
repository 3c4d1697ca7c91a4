//! `scale memory`: what an account and an idle session take of the server's memory, and the time to open a bank.

use std::fs;
use std::thread::scope;
use std::time::{Duration, Instant};

use atm_cli::connection::Connection;
use bank_core::limits::{DEFAULT_CONNECTIONS, SPARE_OPEN_FILES};
use serde_json::{Value, json};

use super::{Failure, generate, session};
use crate::{Server, TestBank};

/// Arguments of `scale memory`.
#[derive(Debug, clap::Args)]
#[command(
    about = "Memory that accounts and idle sessions take, and the time to open a bank",
    long_about = "Memory that accounts and idle sessions take, and the time to open a bank.\n\nAn account's memory is that of a server \
with all accounts above that of a server with one; a session's is what the server has more when all customers have logged in \
and do nothing. It is the memory of the server's process: what the kernel keeps for a connection is not in it."
)]
pub(super) struct MemoryArgs {
    /// Accounts of the bank
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    accounts: u64,
    /// Customers who are logged in at once
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=DEFAULT_CONNECTIONS as u64))]
    sessions: u64,
}

/// `scale memory`.
pub(super) fn run(args: &MemoryArgs) -> Result<Value, Failure> {
    let files = args.sessions + SPARE_OPEN_FILES;
    let allowed = rlimit::increase_nofile_limit(files)?;
    if allowed < files {
        return Err(format!(
            "{} sessions need {files} open files, and this machine allows {allowed} (ulimit -Hn): raise that limit, or say \
             --sessions {} at most",
            args.sessions,
            allowed.saturating_sub(SPARE_OPEN_FILES)
        )
        .into());
    }
    let single = generate(1, &[]);
    let started = Instant::now();
    let bank = generate(args.accounts, &[]);
    let generating = started.elapsed();
    let file_bytes = fs::metadata(bank.path())?.len();
    let (_, _, least) = open(&single)?;
    let (server, opening, with_accounts) = open(&bank)?;
    let per_account = with_accounts.saturating_sub(least) / args.accounts;
    println!(
        "{} accounts: generated in {:.1} s, file {} MiB, opened in {:.2} s, {per_account} bytes of memory an account",
        args.accounts,
        generating.as_secs_f64(),
        file_bytes >> 20,
        opening.as_secs_f64(),
    );
    let sessions = log_all_in(&server, args)?;
    let with_sessions = server.memory()?;
    let per_session = with_sessions.saturating_sub(with_accounts) / args.sessions;
    println!(
        "{} idle sessions: {per_session} bytes of memory a session",
        args.sessions
    );
    // The server goes first, so that the closed connections are not this program's to remember.
    drop(server);
    drop(sessions);
    Ok(json!({
        "accounts": args.accounts, "generating_seconds": generating.as_secs_f64(), "file_bytes": file_bytes,
        "opening_seconds": opening.as_secs_f64(), "bytes_per_account": per_account,
        "sessions": args.sessions, "bytes_per_session": per_session,
    }))
}

/// Serves a bank, and gives the time until it listens and the memory that it has then.
fn open(bank: &TestBank) -> Result<(Server, Duration, u64), Failure> {
    let started = Instant::now();
    let server = bank.serve_quietly();
    let opening = started.elapsed();
    let memory = server.memory()?;
    Ok((server, opening, memory))
}

/// Each customer's session, with a card of its own as far as there are enough.
fn log_all_in(server: &Server, args: &MemoryArgs) -> Result<Vec<Connection>, Failure> {
    // A login waits for the disk, so several log in at once; more would only wait for each other.
    const AT_ONCE: u64 = 16;
    scope(|scope| {
        let threads: Vec<_> = (0..AT_ONCE)
            .map(|first| {
                scope.spawn(move || {
                    (first..args.sessions)
                        .step_by(AT_ONCE as usize)
                        .map(|n| session(server, 1 + n % args.accounts))
                        .collect::<Result<Vec<_>, _>>()
                })
            })
            .collect();
        let mut all = Vec::new();
        for thread in threads {
            all.extend(thread.join().expect("these threads do not panic")?);
        }
        Ok(all)
    })
}
