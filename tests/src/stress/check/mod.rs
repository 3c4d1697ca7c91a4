//! `atm-stress check`: what every client asked and was told, with times, and whether one bank that does one thing after
//! the other could have said so.
//!
//! First small histories, many: few clients make few calls on two accounts, some hang up in the middle, and then all
//! balances are read. Each history is decided twice: by a search that knows nothing of Lsns (`search`), and by Lsn order
//! (`by_lsn`). Then large histories, decided by Lsn order: many clients with several requests on their way, on few
//! accounts; meanwhile snapshots of all balances are read from the bank file (`snapshots`), and the server may be killed.
//! The first, third … of the large histories move cash, too; in the others there are only transfers and balances, so that the
//! sum of all balances must not change.
//!
//! Each history begins with balances that were read when nothing was on its way any more.

mod by_lsn;
mod client;
mod history;
mod search;
#[cfg(test)]
mod simulated;
mod snapshots;

use std::error::Error;
use std::fs;
use std::mem;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Barrier, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;

use crate::{Server, TestBank};
use by_lsn::Opening;
use client::{Address, Client, ClientError};
use history::{Answer, Ask, Call};
use search::Found;
use snapshots::Snapshot;

/// Clients of a small history.
const SMALL_CLIENTS: u64 = 4;

/// Calls of each.
const SMALL_CALLS: usize = 5;

/// Accounts that they share.
const SMALL_ACCOUNTS: u64 = 2;

/// Sums that are asked for, in minor units: large enough that funds do not always suffice.
const AMOUNTS: Range<i64> = 1..60_000;

/// How long a large history goes on: it must fit in memory.
const STRETCH: Duration = Duration::from_secs(5);

/// How often a client of a small history hangs up when it has asked.
const SMALL_HANG_UPS: f64 = 0.05;

/// How often one of a large history does, and leaves all that it has sent together.
const LARGE_HANG_UPS: f64 = 0.0005;

/// Between two snapshots.
const SNAPSHOT_PAUSE: Duration = Duration::from_millis(100);

/// How long a server lives that is to be killed, in milliseconds.
const LIFE_MS: Range<u64> = 100..400;

/// How often the small histories are counted for those who wait.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// How many contradictions are told.
const TOLD: usize = 10;

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// A server with a bank of "atm-server generate", which nobody else uses meanwhile [default: one of its own, in a
    /// temporary directory]
    #[arg(long, value_name = "ADDR")]
    pub server: Option<String>,
    /// That server's bank file, of which to take snapshots; without it there are none
    #[arg(long, value_name = "FILE", requires = "server")]
    pub bank: Option<PathBuf>,
    /// How many small histories, decided by search
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub rounds: u32,
    /// For how many seconds large histories, decided by Lsn order
    #[arg(long, value_name = "S", default_value_t = 4.0)]
    pub seconds: f64,
    /// Clients of the large histories
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub clients: u32,
    /// Requests that such a client sends before it waits for their answers
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub pipeline: u32,
    /// Accounts that they share
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u64).range(SMALL_ACCOUNTS..=1000))]
    pub accounts: u64,
    /// Kill the server with kill -9 during the large histories, and start it again
    #[arg(long, conflicts_with = "server")]
    pub kill: bool,
    /// For the choices made at random; how threads interleave is chance all the same
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// Write the figures to a file, as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// What it came to.
#[derive(Default)]
struct Figures {
    small: u64,
    small_calls: u64,
    undecided: u64,
    large: u64,
    large_calls: u64,
    declined: u64,
    in_doubt: u64,
    refused: u64,
    kills: u64,
    snapshots: u64,
    contradictions: Vec<String>,
}

/// Checks, and tells how it went: on standard error while it lasts, on standard output at the end. True if nothing
/// contradicts.
///
/// # Errors
/// If the check could not be made.
pub fn run(args: &CheckArgs) -> Result<bool, Box<dyn Error>> {
    let seconds =
        Duration::try_from_secs_f64(args.seconds).map_err(|_| "--seconds must be a number of seconds")?;
    let mut site = Site::new(args)?;
    let started = Instant::now();
    site.check(args.rounds, seconds)?;
    let (figures, elapsed) = (&site.figures, started.elapsed());
    print!("{}", table(figures, elapsed));
    if let Some(path) = &args.json {
        fs::write(path, to_json(args, figures, elapsed).to_string() + "\n")
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    print!("{}", verdict(args, figures));
    Ok(figures.contradictions.is_empty())
}

fn table(figures: &Figures, elapsed: Duration) -> String {
    let rows = [
        ("small histories, decided by search and by Lsn", figures.small),
        ("calls in them", figures.small_calls),
        (
            "of them not decided by search: too many orders",
            figures.undecided,
        ),
        ("large histories, decided by Lsn", figures.large),
        ("calls in them", figures.large_calls),
        ("snapshots of all balances", figures.snapshots),
        ("calls that were declined", figures.declined),
        (
            "calls whose answer was lost and asked for again",
            figures.in_doubt,
        ),
        ("requests refused with nothing done", figures.refused),
        ("servers killed", figures.kills),
    ];
    let mut table: String = rows
        .iter()
        .map(|(name, count)| format!("{count:>10}  {name}\n"))
        .collect();
    table.push_str(&format!("{:>10.1}  seconds\n", elapsed.as_secs_f64()));
    table
}

fn verdict(args: &CheckArgs, figures: &Figures) -> String {
    let contradictions = &figures.contradictions;
    if contradictions.is_empty() {
        let sums = match figures.snapshots {
            0 => "no snapshot of all balances was taken",
            _ => "every snapshot of all balances adds up",
        };
        return format!("every history is linearizable, and {sums}\n");
    }
    let mut text: String = contradictions
        .iter()
        .take(TOLD)
        .map(|words| format!("\n{words}\n"))
        .collect();
    if contradictions.len() > TOLD {
        text.push_str(&format!("\n… and {} more\n", contradictions.len() - TOLD));
    }
    text + &format!(
        "\nTHE ANSWERS CONTRADICT EACH OTHER: {} contradictions, seed {}. No bank that does one thing after the other \
         could have given them, unless somebody else used these accounts meanwhile.\n",
        contradictions.len(),
        args.seed
    )
}

fn to_json(args: &CheckArgs, figures: &Figures, elapsed: Duration) -> serde_json::Value {
    json!({
        "ok": figures.contradictions.is_empty(), "seed": args.seed, "seconds": elapsed.as_secs_f64(),
        "clients": args.clients, "pipeline": args.pipeline, "accounts": args.accounts,
        "small_histories": figures.small, "small_calls": figures.small_calls, "undecided": figures.undecided,
        "large_histories": figures.large, "large_calls": figures.large_calls, "snapshots": figures.snapshots,
        "declined": figures.declined, "in_doubt": figures.in_doubt, "refused": figures.refused,
        "kills": figures.kills, "contradictions": figures.contradictions,
    })
}

/// The server that is checked, and its clients.
struct Site {
    /// The file of which snapshots are taken.
    bank: Option<PathBuf>,
    address: Arc<Address>,
    /// One for each account, for the time when nothing else is asked.
    readers: Vec<Client>,
    small: Vec<Client>,
    large: Vec<Client>,
    pipeline: usize,
    /// What they read last.
    opening: Opening,
    /// Whether the server is to be killed.
    kill: bool,
    random: StdRng,
    figures: Figures,
    // In this order they end: the server first, then the place where its bank is.
    server: Option<Server>,
    own: Option<TestBank>,
}

/// What clients do in a history.
#[derive(Clone, Copy)]
struct Plan {
    /// Each sends so many requests together …
    pipeline: usize,
    /// … so many times, or until the time is over.
    times: usize,
    duration: Duration,
    accounts: u64,
    cash: bool,
    hang_ups: f64,
}

impl Plan {
    /// What the customer of an account asks next.
    fn choose(&self, account: u64, random: &mut StdRng) -> Ask {
        let amount = random.random_range(AMOUNTS);
        match random.random_range(0..if self.cash { 10 } else { 6 }) {
            0..2 => Ask::Balance,
            2..6 => Ask::Transfer {
                // To itself only now and then, which is declined.
                to: if random.random_bool(0.03) {
                    account
                } else {
                    1 + (account - 1 + random.random_range(1..self.accounts)) % self.accounts
                },
                amount,
            },
            6..8 => Ask::Deposit(amount),
            _ => Ask::Withdraw(amount),
        }
    }
}

impl Site {
    fn new(args: &CheckArgs) -> Result<Site, Box<dyn Error>> {
        let own = args.server.is_none().then(|| TestBank::generate(args.accounts));
        let server = own.as_ref().map(TestBank::serve_quietly);
        let address = match (&args.server, &server) {
            (Some(address), _) => address.clone(),
            (None, Some(server)) => server.address().to_owned(),
            (None, None) => unreachable!("without a server named there is one of our own"),
        };
        let address = Arc::new(RwLock::new(address));
        let began = Instant::now();
        let mut numbers = 1..;
        let mut clients = |count: u64, accounts: u64| -> Vec<Client> {
            let accounts = (0..count).map(|n| 1 + n % accounts);
            accounts
                .zip(&mut numbers)
                .map(|(account, number)| Client::new(number, account, Arc::clone(&address), began))
                .collect()
        };
        let mut site = Site {
            bank: args.bank.clone().or_else(|| own.as_ref().map(TestBank::path)),
            readers: clients(args.accounts, args.accounts),
            small: clients(SMALL_CLIENTS, SMALL_ACCOUNTS),
            large: clients(args.clients.into(), args.accounts),
            address: Arc::clone(&address),
            pipeline: args.pipeline as usize,
            opening: Opening::default(),
            kill: args.kill,
            random: StdRng::seed_from_u64(args.seed),
            figures: Figures::default(),
            server,
            own,
        };
        for reader in &mut site.readers {
            site.opening.learn(&reader.balance()?);
        }
        Ok(site)
    }

    /// Makes histories and decides them, until one does not hold.
    fn check(&mut self, rounds: u32, duration: Duration) -> Result<(), Box<dyn Error>> {
        let mut told = Instant::now();
        for round in 1..=rounds {
            self.small()?;
            if told.elapsed() > TELL_EVERY {
                eprintln!("small history {round:>5} of {rounds}");
                told = Instant::now();
            }
            if !self.figures.contradictions.is_empty() {
                return Ok(());
            }
        }
        let stretches = if duration.is_zero() {
            0
        } else {
            duration.div_duration_f64(STRETCH).ceil().max(2.0) as u32
        };
        for stretch in 1..=stretches {
            self.large(duration / stretches, stretch % 2 == 1)?;
            let calls = self.figures.large_calls;
            eprintln!("large history {stretch:>5} of {stretches}  {calls:>9} calls so far");
            if !self.figures.contradictions.is_empty() {
                return Ok(());
            }
        }
        // Of what did not happen nothing can be said.
        if self.kill && self.figures.kills == 0 {
            return Err("the server was never killed: give --kill more --seconds".into());
        }
        if self.figures.small_calls + self.figures.large_calls == 0 {
            return Err("nothing was asked: let --rounds or --seconds be more than 0".into());
        }
        Ok(())
    }

    fn small(&mut self) -> Result<(), ClientError> {
        let plan = Plan {
            pipeline: 1,
            times: SMALL_CALLS,
            duration: Duration::MAX,
            accounts: SMALL_ACCOUNTS,
            cash: true,
            hang_ups: SMALL_HANG_UPS,
        };
        let readers = &mut self.readers[..SMALL_ACCOUNTS as usize];
        let calls = make(&plan, &mut self.small, readers, self.random.random())?;
        let opening = self.opening.first(SMALL_ACCOUNTS);
        self.figures.small += 1;
        self.figures.small_calls += calls.len() as u64;
        // What Lsns tell of is told first: it says what is wrong, where a search can only say that something is.
        self.conclude(&opening, &calls, &[]);
        let mut explained = true;
        for account in 1..=SMALL_ACCOUNTS {
            let concerns = |call: &&Call| {
                call.sent.account == account || call.paid().is_some_and(|(payee, _)| payee == account)
            };
            let found = search::of_account(&opening.books, account, &calls);
            explained &= found == Found::Order;
            let seen = calls.iter().filter(concerns);
            self.note(found, &format!("account {account}"), &opening, seen);
        }
        if explained {
            let found = search::of_all(&opening.books, &calls);
            self.note(found, "all accounts together", &opening, calls.iter());
        }
        Ok(())
    }

    /// Takes note of what a search has found.
    fn note<'c>(
        &mut self,
        found: Found,
        what: &str,
        opening: &Opening,
        calls: impl Iterator<Item = &'c Call>,
    ) {
        match found {
            Found::Order => {}
            Found::Nothing => self.figures.undecided += 1,
            Found::NoOrder => {
                let mut calls: Vec<_> = calls.collect();
                calls.sort_unstable_by_key(|call| call.sent.asked);
                let calls: String = calls.iter().map(|call| format!("\n  {call}")).collect();
                self.figures.contradictions.push(format!(
                    "no order of the calls on {what} explains their answers, with {} at first:{calls}",
                    opening.books
                ));
            }
        }
    }

    /// Decides a history by Lsn order. The next one begins where it ends.
    fn conclude(&mut self, opening: &Opening, calls: &[Call], snapshots: &[Snapshot]) {
        let figures = &mut self.figures;
        figures
            .contradictions
            .extend(by_lsn::contradictions(opening, calls, snapshots));
        for call in calls {
            figures.in_doubt += u64::from(call.in_doubt);
            figures.declined += u64::from(matches!(call.answer, Answer::Declined { .. }));
        }
        let clients = self.small.iter_mut().chain(&mut self.large);
        figures.refused += clients.map(|client| mem::take(&mut client.refused)).sum::<u64>();
        // The readers' are the last of a history.
        for call in calls {
            self.opening.learn(call);
        }
    }

    fn large(&mut self, duration: Duration, cash: bool) -> Result<(), Box<dyn Error>> {
        let accounts = self.readers.len() as u64;
        let plan = Plan {
            pipeline: self.pipeline,
            times: usize::MAX,
            duration,
            accounts,
            cash,
            hang_ups: LARGE_HANG_UPS,
        };
        let mut watch = Watch {
            bank: self.bank.as_deref(),
            accounts,
            mortal: self.own.as_ref().filter(|_| self.kill),
            server: &mut self.server,
            address: &self.address,
            snapshots: Vec::new(),
            kills: 0,
        };
        watch.snapshot()?;
        let (stop, stopped) = mpsc::channel();
        let (seed, watch_seed) = (self.random.random(), self.random.random());
        let (large, readers) = (&mut self.large, &mut self.readers);
        let (calls, watched) = thread::scope(|scope| {
            let (watch, stopped) = (&mut watch, stopped);
            let watched = scope.spawn(move || watch.until(&stopped, watch_seed));
            let calls = make(&plan, large, readers, seed);
            drop(stop);
            (calls, watched.join().expect("watching does not panic"))
        });
        let calls = calls?;
        watched?;
        let Watch { snapshots, kills, .. } = watch;
        self.figures.large += 1;
        self.figures.large_calls += calls.len() as u64;
        self.figures.kills += kills;
        self.figures.snapshots += snapshots.len() as u64;
        if let Some(first) = snapshots.first() {
            let total = first.books.total();
            let wrong = snapshots
                .iter()
                .filter_map(|snapshot| snapshots::wrong_sum(snapshot, total, cash));
            self.figures.contradictions.extend(wrong);
        }
        let opening = self.opening.clone();
        self.conclude(&opening, &calls, &snapshots);
        Ok(())
    }
}

/// Makes a history: the clients do as planned, all doubts are settled, and the readers read.
fn make(
    plan: &Plan,
    clients: &mut [Client],
    readers: &mut [Client],
    seed: u64,
) -> Result<Vec<Call>, ClientError> {
    let together = Barrier::new(clients.len());
    let work = |n: u64, client: &mut Client| {
        let mut random = StdRng::seed_from_u64(seed.wrapping_add(n));
        together.wait();
        let started = Instant::now();
        for _ in 0..plan.times {
            if started.elapsed() >= plan.duration {
                break;
            }
            let asks: Vec<Ask> = (0..plan.pipeline)
                .map(|_| plan.choose(client.account, &mut random))
                .collect();
            client.ask(&asks, random.random_bool(plan.hang_ups))?;
            // Now soon, now late.
            if random.random() {
                client.settle()?;
            }
        }
        client.settle()
    };
    let mut calls = Vec::new();
    thread::scope(|scope| {
        let work = &work;
        let working: Vec<_> = (0..)
            .zip(clients.iter_mut())
            .map(|(n, client)| scope.spawn(move || work(n, client)))
            .collect();
        // Every one is waited for, whatever came of another.
        let ends: Vec<_> = working
            .into_iter()
            .map(|client| client.join().expect("a client does not panic"))
            .collect();
        ends.into_iter().collect::<Result<(), ClientError>>()
    })?;
    for client in clients {
        calls.append(&mut client.calls);
    }
    for reader in readers {
        calls.push(reader.balance()?);
    }
    Ok(calls)
}

/// What goes on beside the clients: snapshots, and a server that is killed and started again. One after the other, since
/// a bank file that is being read cannot be opened.
struct Watch<'a> {
    bank: Option<&'a Path>,
    accounts: u64,
    /// The bank whose server is to be killed.
    mortal: Option<&'a TestBank>,
    server: &'a mut Option<Server>,
    address: &'a Address,
    snapshots: Vec<Snapshot>,
    kills: u64,
}

impl Watch<'_> {
    fn until(&mut self, stopped: &mpsc::Receiver<()>, seed: u64) -> rusqlite::Result<()> {
        let mut random = StdRng::seed_from_u64(seed);
        let mut death = Instant::now() + Duration::from_millis(random.random_range(LIFE_MS));
        while stopped.recv_timeout(SNAPSHOT_PAUSE) == Err(RecvTimeoutError::Timeout) {
            self.snapshot()?;
            if let Some(bank) = self.mortal.filter(|_| death <= Instant::now()) {
                self.server.take().into_iter().for_each(Server::kill);
                let server = bank.serve_quietly();
                server
                    .address()
                    .clone_into(&mut self.address.write().expect("no holder panics"));
                *self.server = Some(server);
                self.kills += 1;
                death = Instant::now() + Duration::from_millis(random.random_range(LIFE_MS));
            }
        }
        self.snapshot()
    }

    fn snapshot(&mut self) -> rusqlite::Result<()> {
        if let Some(bank) = self.bank {
            let since = self.snapshots.first().map(|first| first.lsn);
            self.snapshots.push(Snapshot::take(bank, self.accounts, since)?);
        }
        Ok(())
    }
}
