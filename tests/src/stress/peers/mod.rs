//! `atm-stress peers`: the same work by the bank, by PostgreSQL and by Redis, in one run and in alternation.
//!
//! A deposit or a withdrawal, half and half, of a small sum: the account is there and open, the overdraft limit
//! allows it; the balance changes; a row of history has the sum and the balance after it; all is on disk before it is
//! answered. The peers are set up as somebody who knows them would, with their default durability, on loopback, with
//! files beside the bank's, and are loaded by their own programs. They do less than the bank: no ids are remembered, so that a
//! repeat would be done twice, there is neither session nor contra account, and Redis's entries have no time.
//!
//! What the peers did is counted and added up at the end. If anything is missing there are no figures.

use std::error::Error;
use std::fs;
use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use self::postgresql::PostgreSql;
use self::programs::Places;
use self::redis::Redis;
use super::load::{Load, Spread, make};
use super::rounds::OverRounds;
use super::{echo, seconds};
use crate::{Server, TestBank, program};

mod postgresql;
mod programs;
mod redis;

/// What is in each account at first, in minor units, as `atm-server generate` has it.
const OPENING: i64 = 100_000;

/// Arguments of `peers`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
All files lie in a temporary directory, below TMPDIR if that is set: what an fsync costs is what it costs there. \
PostgreSQL's and Redis's programs are looked for on the PATH (PostgreSQL's also where Debian has them), and run on free \
loopback ports, as nobody if you are root. What is not installed is left out.

Exit codes: 0 measured, 1 nothing to compare with or something failed, 2 wrong usage.")]
pub struct PeersArgs {
    /// How often each is measured; the median is told
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// How long each measurement lasts (PostgreSQL's: whole seconds, rounded up, after one that is not counted)
    #[arg(long, value_name = "S", default_value = "2", value_parser = seconds)]
    pub seconds: Duration,
    /// Connections at once, one request outstanding each
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub connections: u32,
    /// How many accounts each has
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(2..))]
    pub accounts: u64,
    /// Fail if a peer's programs are missing, rather than leave it out
    #[arg(long)]
    pub require: bool,
    /// Write the figures to a file, as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// What each of them has to do.
#[derive(Clone, Copy)]
struct Work {
    connections: u32,
    accounts: u64,
    duration: Duration,
}

/// Measures, and prints the bank's speed as ratios to that of each peer.
///
/// # Errors
/// If there is no peer to compare with, or something did not do what it was asked to do, or Ctrl-C or SIGTERM came.
/// Whatever was started is stopped then, and its files are gone.
pub fn run(args: &PeersArgs) -> Result<(), Box<dyn Error>> {
    let work = Work {
        connections: args.connections,
        accounts: args.accounts,
        duration: args.seconds,
    };
    let places = Places::of_this_machine();
    let (postgresql, redis) = (
        postgresql::Programs::find(&places),
        redis::Programs::find(&places),
    );
    let missing: Vec<_> = [postgresql.as_ref().err(), redis.as_ref().err()]
        .into_iter()
        .flatten()
        .map(ToString::to_string)
        .collect();
    if missing.len() == 2 || (args.require && !missing.is_empty()) {
        return Err(missing.join("\natm-stress: ").into());
    }
    for missing in &missing {
        eprintln!("{missing}");
    }
    // Both may have to be built first.
    program("atm-server");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let rows = runtime.block_on(until_told_to_stop(async {
        let place = tempfile::Builder::new().prefix("atm-peers-").tempdir()?;
        // Servers that run as nobody must get through to their own directories.
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o711))?;
        let bank = Bank::start(place.path(), work).await?;
        let mut peers = vec![Peer::Echo(echo::start(None))];
        if let Ok(programs) = postgresql {
            peers.push(Peer::PostgreSql(
                PostgreSql::start(programs, place.path(), work).await?,
            ));
        }
        if let Ok(programs) = redis {
            peers.push(Peer::Redis(Redis::start(programs, place.path(), work).await?));
        }
        measure(&bank, &mut peers, work, args.rounds).await
    }))?;
    print!("{}", table(args, &rows));
    if let Some(path) = &args.json {
        fs::write(path, to_json(args, &rows).to_string() + "\n")
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

/// Drops the work, and with it all that it has started, when a signal comes.
async fn until_told_to_stop<T>(
    work: impl Future<Output = Result<T, Box<dyn Error>>>,
) -> Result<T, Box<dyn Error>> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        biased;
        _ = interrupt.recv() => Err("interrupted".into()),
        _ = terminate.recv() => Err("terminated".into()),
        done = work => done,
    }
}

/// The bank itself, with its accounts.
struct Bank {
    server: Server,
    work: Work,
}

impl Bank {
    async fn start(place: &Path, work: Work) -> Result<Bank, Box<dyn Error>> {
        let home = place.join("bank");
        fs::create_dir(&home)?;
        let bank = TestBank::at(&home);
        let mut generate = Command::new(program("atm-server"));
        generate.args(["generate", "--accounts", &work.accounts.to_string()]);
        generate.env("ATM_BANK", bank.path());
        programs::output(generate).await?;
        Ok(Bank {
            server: bank.serve_quietly(),
            work,
        })
    }

    async fn measure(&self, spread: Spread, round: u32) -> Result<f64, Box<dyn Error>> {
        ask(&self.server, spread, round, self.work).await
    }
}

/// Answers a second of a server that has our frames.
async fn ask(server: &Server, spread: Spread, round: u32, work: Work) -> Result<f64, Box<dyn Error>> {
    let load = Load {
        spread,
        seed: u64::from(round) << 32,
        ..Load::new(work.connections as usize, work.accounts, work.duration)
    };
    Ok(make(server.address(), &load).await?.conserved()?.per_second())
}

/// Whom the bank is compared with.
enum Peer {
    /// The limit of what any server with the bank's frames can do; it knows no accounts.
    Echo(Server),
    PostgreSql(PostgreSql),
    Redis(Redis),
}

impl Peer {
    async fn name(&self) -> Result<String, String> {
        match self {
            Peer::Echo(_) => Ok("echo".to_owned()),
            Peer::PostgreSql(postgresql) => postgresql.version().await,
            Peer::Redis(redis) => redis.version().await,
        }
    }

    async fn measure(&mut self, spread: Spread, round: u32, work: Work) -> Result<f64, Box<dyn Error>> {
        match self {
            Peer::Echo(server) => ask(server, spread, round, Work { accounts: 0, ..work }).await,
            Peer::PostgreSql(postgresql) => Ok(postgresql.measure(spread, round).await?),
            Peer::Redis(redis) => Ok(redis.measure(spread).await?),
        }
    }

    /// How many requests are in its history, which all add up.
    async fn check(&self) -> Result<Option<u64>, String> {
        match self {
            Peer::Echo(_) => Ok(None),
            Peer::PostgreSql(postgresql) => postgresql.check().await.map(Some),
            Peer::Redis(redis) => redis.check().await.map(Some),
        }
    }
}

/// A peer, or the bank itself, over one kind of accounts.
struct Row {
    name: String,
    accounts: &'static str,
    per_second: Vec<f64>,
    /// The bank's speed in the same round by this one.
    ratios: Vec<f64>,
    /// What its history has in the end, of all measurements.
    history: Option<u64>,
}

const SPREADS: [(&str, Spread); 2] = [("uniform", Spread::Uniform), ("hot", Spread::Hot)];

async fn measure(
    bank: &Bank,
    peers: &mut [Peer],
    work: Work,
    rounds: u32,
) -> Result<Vec<Row>, Box<dyn Error>> {
    let progress = progress_bar(u64::from(rounds) * (1 + peers.len() as u64) * SPREADS.len() as u64);
    let new_row = |name: &str, accounts| Row {
        name: name.to_owned(),
        accounts,
        per_second: Vec::new(),
        ratios: Vec::new(),
        history: None,
    };
    let mut rows = SPREADS
        .map(|(accounts, _)| new_row("bank", accounts))
        .into_iter()
        .collect::<Vec<_>>();
    for peer in peers.iter() {
        let name = peer.name().await?;
        rows.extend(SPREADS.map(|(accounts, _)| new_row(&name, accounts)));
    }
    for round in 0..rounds {
        let mut ours = Vec::new();
        let mut row = rows.iter_mut();
        let mut next_row = || {
            let row = row.next().expect("everything measured has its row");
            progress.set_message(format!("{}, {}", row.name, row.accounts));
            row
        };
        for (_, spread) in SPREADS {
            let row = next_row();
            let per_second = bank.measure(spread, round).await?;
            row.per_second.push(per_second);
            ours.push(per_second);
            progress.inc(1);
        }
        for peer in peers.iter_mut() {
            for ((_, spread), ours) in SPREADS.into_iter().zip(&ours) {
                let row = next_row();
                let per_second = peer.measure(spread, round, work).await?;
                row.per_second.push(per_second);
                row.ratios.push(ours / per_second);
                progress.inc(1);
            }
        }
    }
    for (peer, rows) in peers.iter().zip(rows[SPREADS.len()..].chunks_mut(SPREADS.len())) {
        progress.set_message("adding up what the peers did");
        let history = peer.check().await?;
        rows.iter_mut().for_each(|row| row.history = history);
    }
    progress.finish_and_clear();
    Ok(rows)
}

fn progress_bar(measurements: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} ({eta} left)");
    ProgressBar::new(measurements).with_style(style.expect("the template is well-formed"))
}

fn table(args: &PeersArgs, rows: &[Row]) -> String {
    let name_width = rows.iter().map(|row| row.name.len()).max().unwrap_or_default();
    let mut table = format!(
        "deposits and withdrawals, {} connections, {} accounts, {} rounds of {} s; medians\n\
         {:name_width$}  {:>8}  {:>26}  {:>21}\n",
        args.connections,
        args.accounts,
        args.rounds,
        args.seconds.as_secs_f64(),
        "",
        "accounts",
        "per second (min-max)",
        "bank / it (min-max)",
    );
    for row in rows {
        let OverRounds { min, median, max } = OverRounds::of(row.per_second.iter().copied());
        let per_second = format!("{median:.0} ({min:.0}\u{2013}{max:.0})");
        let ratio = if row.ratios.is_empty() {
            String::new()
        } else {
            OverRounds::of(row.ratios.iter().copied()).to_string()
        };
        let line = format!(
            "{:name_width$}  {:>8}  {per_second:>26}  {ratio:>21}",
            row.name, row.accounts
        );
        table += line.trim_end();
        table += "\n";
    }
    for row in rows.iter().filter(|row| row.accounts == SPREADS[0].0) {
        if let Some(history) = row.history {
            table += &format!(
                "{}: all {history} requests are in its history, and its balances agree\n",
                row.name
            );
        }
    }
    table
}

fn to_json(args: &PeersArgs, rows: &[Row]) -> serde_json::Value {
    let spread = |values: &[f64]| OverRounds::of(values.iter().copied()).to_json();
    let row = |row: &Row| {
        let ratio = (!row.ratios.is_empty()).then(|| spread(&row.ratios));
        json!({
            "name": row.name, "accounts": row.accounts, "per_second": spread(&row.per_second), "bank_ratio": ratio,
            "requests_checked": row.history,
        })
    };
    json!({
        "connections": args.connections, "accounts": args.accounts, "rounds": args.rounds, "seconds": args.seconds.as_secs_f64(),
        "rows": rows.iter().map(row).collect::<Vec<_>>(),
    })
}
