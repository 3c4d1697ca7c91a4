//! `atm-stress run`: one load on one server, watched, and a verdict.

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::load::{Load, Measured, Mix, Spread, make};
use crate::TestBank;

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// A server with a bank of "atm-server generate" [default: one of its own, in a temporary directory]
    #[arg(long, value_name = "ADDR")]
    pub server: Option<String>,
    /// Connections at once
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub connections: u32,
    /// Requests that a connection sends before it waits for their answers
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub pipeline: u32,
    /// How many seconds
    #[arg(long, value_name = "S", default_value_t = 10.0)]
    pub duration: f64,
    /// What is asked for, by weight: deposit, withdraw, transfer, balance
    #[arg(long, value_name = "MIX", default_value = "deposit=50,withdraw=50")]
    pub mix: Mix,
    /// Accounts chosen at random, or one for all connections
    #[arg(long, value_enum, default_value = "uniform")]
    pub accounts: SpreadArg,
    /// How many accounts the bank has
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    pub cards: u64,
    /// For the choices made at random
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// Write the figures to a file, as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// See [`Spread`].
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum SpreadArg {
    /// Each connection an account of its own, chosen at random
    Uniform,
    /// One account for all
    Hot,
}

/// Makes the load and tells how it went: on standard error while it lasts, on standard output at the end. True if
/// the money is all there.
///
/// # Errors
/// If the load could not be made.
pub fn run(args: &RunArgs) -> Result<bool, Box<dyn Error>> {
    let duration =
        Duration::try_from_secs_f64(args.duration).map_err(|_| "--duration must be a number of seconds")?;
    let load = Load {
        connections: args.connections as usize,
        pipeline: args.pipeline as usize,
        duration,
        mix: args.mix.clone(),
        spread: match args.accounts {
            SpreadArg::Uniform => Spread::Uniform,
            SpreadArg::Hot => Spread::Hot,
        },
        accounts: args.cards,
        seed: args.seed,
    };
    let own = args
        .server
        .is_none()
        .then(|| TestBank::generate(args.cards))
        .map(|bank| (bank.serve(), bank));
    let server = match (&args.server, &own) {
        (Some(address), _) => address.clone(),
        (None, Some((server, _))) => server.address().to_owned(),
        (None, None) => unreachable!("without a server named there is one of our own"),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let measured = runtime.block_on(watched(&server, &load))?;
    print!("{}", table(&load, &measured));
    if let Some(path) = &args.json {
        fs::write(path, to_json(&load, &measured).to_string() + "\n")
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(measured.not_conserved.is_empty())
}

async fn watched(server: &str, load: &Load) -> Result<Measured, Box<dyn Error>> {
    let progress = Arc::new(AtomicU64::new(0));
    let mut making = std::pin::pin!(make(server, load, Arc::clone(&progress)));
    let mut tick = interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (started, mut seen) = (Instant::now(), 0);
    loop {
        tokio::select! {
            measured = &mut making => return Ok(measured?),
            now = tick.tick() => {
                let answers = progress.load(Ordering::Relaxed);
                if answers > 0 {
                    eprintln!("{:>4} s  {:>9} answers/s", (now - started).as_secs(), answers - seen);
                }
                seen = answers;
            }
        }
    }
}

fn table(load: &Load, measured: &Measured) -> String {
    let verdict = match measured.not_conserved.as_slice() {
        [] => "the money is all there".to_owned(),
        [(account, expected, found), rest @ ..] => format!(
            "MONEY IS NOT CONSERVED: account {account} should have {expected} minor units and has {found}; {} more",
            rest.len()
        ),
    };
    let us = |percentile| measured.latency_us(percentile);
    format!(
        "{} connections, pipeline {}, {:?}\n{:>12.0} answers/s ({} answers, {} declined, {:.1} s)\n\
         {:>12.0} us p50\n{:>12.0} us p90\n{:>12.0} us p99\n{:>12.0} us p99.9\n{:>12.0} us longest\n{verdict}\n",
        load.connections,
        load.pipeline,
        load.spread,
        measured.per_second(),
        measured.answers,
        measured.declined,
        measured.elapsed.as_secs_f64(),
        us(50.0),
        us(90.0),
        us(99.0),
        us(99.9),
        us(100.0),
    )
}

fn to_json(load: &Load, measured: &Measured) -> serde_json::Value {
    let us = |percentile| measured.latency_us(percentile);
    json!({
        "connections": load.connections, "pipeline": load.pipeline, "seed": load.seed,
        "seconds": measured.elapsed.as_secs_f64(), "answers": measured.answers, "declined": measured.declined,
        "per_second": measured.per_second(), "conserved": measured.not_conserved.is_empty(),
        "latency_us": { "p50": us(50.0), "p90": us(90.0), "p99": us(99.0), "p999": us(99.9), "max": us(100.0) },
    })
}
