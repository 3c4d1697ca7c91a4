//! `scale logins`: how much of the cores' PIN checks logging in gets, and what a storm of logins does to balances.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{available_parallelism, scope};
use std::time::{Duration, Instant};

use atm_cli::connection::Connection;
use bank_core::limits::PIN_QUEUE;
use bank_core::{Peppers, Pin, TerminalId, bank_file};
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::super::rounds::OverRounds;
use super::super::seconds;
use super::{Failure, generate, log_in, look_into, pause_until, session};
use crate::{Server, TestBank};

/// How often each asker asks for its balance: so seldom that the askers alone leave the machine nearly idle.
const BALANCE_EVERY: Duration = Duration::from_millis(10);

/// Arguments of `scale logins`.
#[derive(Debug, clap::Args)]
#[command(
    about = "Logins beside bare PIN checks on all cores, and what a storm of them does to those who are logged in",
    long_about = "Logins beside bare PIN checks on all cores, and what a storm of them does to those who are logged in.\n\n\
Each round has four parts: PIN checks by this program alone, on all cores; as many logins by all connections at once, \
logging out in between; balances, which some sessions ask for a hundred times a second each, while nothing else happens; \
the same while the logins go on. PINs are hashed as in a real bank (argon2id, 19 MiB)."
)]
pub(super) struct LoginsArgs {
    /// Connections that log in at once
    // More would be told that too many wait.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=PIN_QUEUE as u64))]
    connections: u64,
    /// Logins of each connection in a round
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=1000))]
    logins: u64,
    /// Sessions that ask for their balance
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=1000))]
    askers: u64,
    /// How long balances are asked for while nothing else happens
    #[arg(long, value_name = "S", default_value = "3", value_parser = seconds)]
    seconds: Duration,
    /// How often all is measured; medians are told
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
}

/// `scale logins`.
pub(super) fn run(args: &LoginsArgs) -> Result<Value, Failure> {
    let bank = generate(args.connections + args.askers, &["--pin-profile", "standard"]);
    let server = bank.serve_quietly();
    let checker = PinChecker::new(&bank)?;
    let mut storm = Storm::new(&server, args)?;
    let mut askers: Vec<Connection> = (1..=args.askers)
        .map(|n| session(&server, args.connections + n))
        .collect::<Result<_, _>>()?;
    let logins = args.connections * args.logins;
    println!(
        "{logins} logins by {} connections, beside as many PIN checks on {} cores; {} sessions that ask for their balance",
        args.connections, checker.cores, args.askers
    );
    println!(
        "{:>5}  {:>8}  {:>8}  {:>5}  {:>18}  {:>19}  {:>5}",
        "round", "logins/s", "checks/s", "ratio", "balance p99 us", "in the storm p99 us", "ratio"
    );
    let (mut rates, mut p99s) = (Vec::new(), Vec::new());
    for round in 1..=args.rounds {
        let checks = logins as f64 / checker.check(logins)?.as_secs_f64();
        let logged_in = logins as f64 / storm.rage()?.as_secs_f64();
        let calm = balances_during(&mut askers, || {
            pause_until(Instant::now() + args.seconds);
            Ok(())
        })?;
        let stormy = balances_during(&mut askers, || storm.rage().map(drop))?;
        rates.push((logged_in, checks));
        p99s.push((stormy, calm));
        println!(
            "{round:>5}  {logged_in:>8.1}  {checks:>8.1}  {:>5.2}  {calm:>18.0}  {stormy:>19.0}  {:>5.2}",
            logged_in / checks,
            stormy / calm
        );
    }
    let (rate, p99) = (OverRounds::of_ratios(&rates), OverRounds::of_ratios(&p99s));
    println!("logins \u{f7} PIN checks of all cores: {rate}");
    println!("balance p99 in the storm \u{f7} calm: {p99}");
    let of = |pairs: &[(f64, f64)], n: fn(&(f64, f64)) -> f64| OverRounds::of(pairs.iter().map(n)).to_json();
    Ok(json!({
        "connections": args.connections, "askers": args.askers, "rounds": args.rounds, "cores": checker.cores,
        "logins_per_second": of(&rates, |pair| pair.0), "checks_per_second": of(&rates, |pair| pair.1),
        "ratio": rate.to_json(),
        "storm_balance_p99_us": of(&p99s, |pair| pair.0), "calm_balance_p99_us": of(&p99s, |pair| pair.1),
        "p99_ratio": p99.to_json(),
    }))
}

/// Checks a PIN of the bank as the bank does, and does nothing else.
struct PinChecker {
    cores: usize,
    peppers: Peppers,
    pin: Pin,
    hash: String,
    pepper_id: u32,
}

impl PinChecker {
    fn new(bank: &TestBank) -> Result<PinChecker, Failure> {
        let (hash, pepper_id) = look_into(&bank.path())?.query_row(
            "SELECT pin_hash, pepper_id FROM cards WHERE card = '1'",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        Ok(PinChecker {
            cores: available_parallelism()?.get(),
            peppers: Peppers::read(&bank_file::beside(&bank.path(), "pepper"))?,
            pin: Pin::new(b"0001")?,
            hash,
            pepper_id,
        })
    }

    /// How long so many checks take all cores.
    fn check(&self, checks: u64) -> Result<Duration, Failure> {
        let begun = AtomicU64::new(0);
        let work = || -> Result<(), Failure> {
            while begun.fetch_add(1, Ordering::Relaxed) < checks {
                if !self.peppers.verify(&self.pin, &self.hash, self.pepper_id)? {
                    return Err("the PIN of card 1 is not 0001".into());
                }
            }
            Ok(())
        };
        let started = Instant::now();
        scope(|scope| {
            let threads: Vec<_> = (0..self.cores).map(|_| scope.spawn(work)).collect();
            threads.into_iter().try_for_each(joined)
        })?;
        Ok(started.elapsed())
    }
}

/// Connections that do nothing but log in and out, each with a card of its own.
struct Storm {
    connections: Vec<Connection>,
    logins: u64,
}

impl Storm {
    fn new(server: &Server, args: &LoginsArgs) -> Result<Storm, Failure> {
        let terminal = TerminalId::new("STRESS")?;
        let connections = (0..args.connections).map(|_| Connection::connect(server.address(), terminal));
        Ok(Storm {
            connections: connections.collect::<Result<_, _>>()?,
            logins: args.logins,
        })
    }

    /// How long it takes them all.
    fn rage(&mut self) -> Result<Duration, Failure> {
        let logins = self.logins;
        let started = Instant::now();
        scope(|scope| {
            let threads: Vec<_> = self
                .connections
                .iter_mut()
                .zip(1..)
                .map(|(connection, card)| {
                    scope.spawn(move || -> Result<(), Failure> {
                        for _ in 0..logins {
                            log_in(connection, card)?;
                            connection.logout()?;
                        }
                        Ok(())
                    })
                })
                .collect();
            threads.into_iter().try_for_each(joined)
        })?;
        Ok(started.elapsed())
    }
}

/// The 99th percentile, in microseconds, of how long balances took while `work` was being done.
fn balances_during(
    askers: &mut [Connection],
    work: impl FnOnce() -> Result<(), Failure>,
) -> Result<f64, Failure> {
    let done = AtomicBool::new(false);
    let all = scope(|scope| -> Result<Histogram<u64>, Failure> {
        let done = &done;
        let count = askers.len() as u32;
        let started = Instant::now();
        let threads: Vec<_> = askers
            .iter_mut()
            .zip(0..)
            .map(|(connection, n)| {
                // Not all at the same instant.
                let first = started + BALANCE_EVERY * n / count;
                scope.spawn(move || ask(connection, first, done))
            })
            .collect();
        let worked = work();
        done.store(true, Ordering::Relaxed);
        let mut all = Histogram::new(3)?;
        for thread in threads {
            all.add(joined(thread)?)?;
        }
        worked.map(|()| all)
    })?;
    Ok(all.value_at_quantile(0.99) as f64 / 1000.0)
}

/// Asks for the balance at regular times, until all is done, and gives the latencies in nanoseconds.
fn ask(connection: &mut Connection, first: Instant, done: &AtomicBool) -> Result<Histogram<u64>, Failure> {
    let mut latencies = Histogram::new(3)?;
    let mut due = first;
    while latencies.is_empty() || !done.load(Ordering::Relaxed) {
        // What is due while an answer is still awaited has been waiting since it was due.
        let since = if due < Instant::now() {
            due
        } else {
            pause_until(due);
            Instant::now()
        };
        connection.balance()?;
        latencies.record(since.elapsed().as_nanos() as u64)?;
        due += BALANCE_EVERY;
    }
    Ok(latencies)
}

fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, Result<T, Failure>>) -> Result<T, Failure> {
    thread.join().expect("these threads do not panic")
}
