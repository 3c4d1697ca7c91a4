//! `atm-stress bench`: the bank beside a bare echo server, in one run and in alternation, so that whatever the
//! machine does to one it does to the other.
//!
//! A round measures everything once, the echo server included, and every other round does it in the opposite order: what
//! drifts is then on both sides alike. Ratios are of one round; told are their least, middle and greatest.

use std::error::Error;
use std::fs;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::commit_loop::CommitLoop;
use super::load::{self, Load, Measured, Mix, make};
use super::rounds::OverRounds;
use super::{echo, seconds};
use crate::{Server, TestBank};

/// Arguments of `bench`.
#[derive(Debug, clap::Args)]
pub struct BenchArgs {
    /// How often each is measured
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// How long each measurement lasts
    #[arg(long, value_name = "S", default_value = "1", value_parser = seconds)]
    pub seconds: Duration,
    /// What is measured
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        value_enum,
        default_value = "transaction,balance,hot"
    )]
    pub works: Vec<Work>,
    /// Numbers of connections [default: 1,16,64,256]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub connections: Vec<u32>,
    /// Requests that a connection has outstanding, with each number of connections [default: 1, and 16 with 64
    /// connections]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub pipeline: Vec<u32>,
    /// Worker threads of the echo server [default: as many as the bank server has]
    #[arg(long, value_name = "N")]
    pub echo_workers: Option<NonZeroUsize>,
    /// How many accounts the bank has
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub accounts: u64,
    /// Write the figures to a file, as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Work {
    /// Deposits and withdrawals, half and half, each connection on an account chosen at random
    Transaction,
    /// Balances, likewise
    Balance,
    /// Deposits and withdrawals, all on one account
    Hot,
}

impl Work {
    fn name(self) -> &'static str {
        match self {
            Work::Transaction => "transaction",
            Work::Balance => "balance",
            Work::Hot => "hot",
        }
    }

    fn load(self, load: Load) -> Load {
        match self {
            Work::Transaction => load,
            Work::Balance => Load {
                mix: Mix::only(load::Work::Balance),
                ..load
            },
            Work::Hot => Load {
                spread: load::Spread::Hot,
                ..load
            },
        }
    }
}

/// How many connections, with how many requests outstanding each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    connections: u32,
    pipeline: u32,
}

impl BenchArgs {
    fn shapes(&self) -> Vec<Shape> {
        let given = |list: &[u32], default: &[u32]| {
            if list.is_empty() {
                default.to_vec()
            } else {
                list.to_vec()
            }
        };
        let connections = given(&self.connections, &[1, 16, 64, 256]);
        let pipelines = given(&self.pipeline, &[1]);
        let shape = |connections| {
            move |pipeline| Shape {
                connections,
                pipeline,
            }
        };
        let mut shapes: Vec<_> = connections
            .iter()
            .flat_map(|&connections| pipelines.iter().copied().map(shape(connections)))
            .collect();
        if self.connections.is_empty() && self.pipeline.is_empty() {
            shapes.push(Shape {
                connections: 64,
                pipeline: 16,
            });
        }
        shapes
    }
}

/// One line of the table, still growing: a value a round.
struct Row {
    work: Work,
    shape: Shape,
    per_second: Vec<f64>,
    echo_per_second: Vec<f64>,
    /// Microseconds: p50, p99, p99.9.
    latency: [Vec<f64>; 3],
    /// Commits a second of the bare loop, with one connection.
    commit_loop: Vec<f64>,
}

impl Row {
    fn new(work: Work, shape: Shape) -> Row {
        Row {
            work,
            shape,
            per_second: Vec::new(),
            echo_per_second: Vec::new(),
            latency: Default::default(),
            commit_loop: Vec::new(),
        }
    }

    fn ratio_to(&self, others: &[f64]) -> OverRounds {
        OverRounds::of(
            self.per_second
                .iter()
                .zip(others)
                .map(|(mine, others)| mine / others),
        )
    }

    fn line(&self) -> String {
        let median = |values: &[f64]| OverRounds::of(values.iter().copied()).median;
        let [p50, p99, p999] = &self.latency;
        format!(
            "{:>11} {:>7} {:>4} {:>10.0} {:>10.0}  {:<17} {:>7.0} {:>7.0} {:>8.0}",
            self.work.name(),
            self.shape.connections,
            self.shape.pipeline,
            median(&self.per_second),
            median(&self.echo_per_second),
            self.ratio_to(&self.echo_per_second).to_string(),
            median(p50),
            median(p99),
            median(p999),
        )
    }

    fn to_json(&self) -> Value {
        let median = |values: &[f64]| OverRounds::of(values.iter().copied()).median;
        let [p50, p99, p999] = &self.latency;
        let mut row = json!({
            "work": self.work.name(),
            "connections": self.shape.connections,
            "pipeline": self.shape.pipeline,
            "per_second": median(&self.per_second),
            "echo_per_second": median(&self.echo_per_second),
            "ratio_to_echo": self.ratio_to(&self.echo_per_second).to_json(),
            "latency_us": { "p50": median(p50), "p99": median(p99), "p999": median(p999) },
        });
        if !self.commit_loop.is_empty() {
            row["sqlite_per_second"] = json!(median(&self.commit_loop));
            row["ratio_to_sqlite"] = self.ratio_to(&self.commit_loop).to_json();
        }
        row
    }
}

/// Measures what was asked for beside the echo server, tells it, and writes it to a file if one is named.
///
/// # Errors
/// If a load could not be made, or money was lost under it.
pub fn run(args: &BenchArgs) -> Result<(), Box<dyn Error>> {
    let bank = TestBank::generate(args.accounts);
    let bench = Bench {
        server: bank.serve_quietly(),
        echo: echo::start(args.echo_workers),
        runtime: tokio::runtime::Builder::new_multi_thread().enable_all().build()?,
        commit_loop: CommitLoop::new(&bank)?,
    };
    println!(
        "{} accounts, {} rounds of {} s each; medians, and the least and greatest ratio",
        args.accounts,
        args.rounds,
        args.seconds.as_secs_f64()
    );
    println!(
        "{:>11} {:>7} {:>4} {:>10} {:>10}  {:<17} {:>7} {:>7} {:>8}",
        "work", "clients", "pipe", "bank/s", "echo/s", "bank/echo", "p50 us", "p99 us", "p99.9 us"
    );
    let mut all = Vec::new();
    for shape in args.shapes() {
        let mut rows: Vec<_> = args.works.iter().map(|&work| Row::new(work, shape)).collect();
        for round in 0..args.rounds {
            bench.round(args, shape, round, &mut rows)?;
        }
        for row in &rows {
            println!("{}", row.line());
        }
        notes(&rows).iter().for_each(|note| println!("{note}"));
        all.append(&mut rows);
    }
    if let Some(path) = &args.json {
        let rows: Vec<_> = all.iter().map(Row::to_json).collect();
        fs::write(path, json!({ "rows": rows }).to_string() + "\n")
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

/// What the rows of one shape say about each other.
fn notes(rows: &[Row]) -> Vec<String> {
    let find = |work| rows.iter().find(|row| row.work == work);
    let mut notes = Vec::new();
    if let (Some(hot), Some(uniform)) = (find(Work::Hot), find(Work::Transaction)) {
        let ratio = hot.ratio_to(&uniform.per_second);
        notes.push(format!("{:>11} hot/transaction {ratio}", ""));
    }
    if let Some(row) = find(Work::Transaction).filter(|row| !row.commit_loop.is_empty()) {
        let ratio = row.ratio_to(&row.commit_loop);
        notes.push(format!("{:>11} transaction/bare SQLite commits {ratio}", ""));
    }
    notes
}

/// What is measured beside each other.
struct Bench {
    server: Server,
    echo: Server,
    runtime: Runtime,
    commit_loop: CommitLoop,
}

impl Bench {
    fn round(
        &self,
        args: &BenchArgs,
        shape: Shape,
        round: u32,
        rows: &mut [Row],
    ) -> Result<(), Box<dyn Error>> {
        let load = Load {
            pipeline: shape.pipeline as usize,
            seed: u64::from(round) << 32,
            ..Load::new(shape.connections as usize, args.accounts, args.seconds)
        };
        let backwards = round % 2 == 1;
        // Balances are echoed as balances are answered; everything else has the same frames.
        let measure_echoes = |echoes: &mut [(bool, Option<f64>)]| -> Result<(), Box<dyn Error>> {
            for (balances, per_second) in echoes {
                let work = if *balances {
                    Work::Balance
                } else {
                    Work::Transaction
                };
                let echo = Load {
                    accounts: 0,
                    ..work.load(load.clone())
                };
                *per_second = Some(self.measure(&self.echo, &echo)?.per_second());
            }
            Ok(())
        };
        let mut echoes: Vec<(bool, Option<f64>)> = [false, true]
            .into_iter()
            .filter(|&balances| rows.iter().any(|row| (row.work == Work::Balance) == balances))
            .map(|balances| (balances, None))
            .collect();
        if !backwards {
            measure_echoes(&mut echoes)?;
        }
        let mut order: Vec<_> = (0..rows.len()).collect();
        if backwards {
            order.reverse();
        }
        for n in order {
            let row = &mut rows[n];
            let measured = self.measure(&self.server, &row.work.load(load.clone()))?;
            row.per_second.push(measured.per_second());
            for (values, percentile) in row.latency.iter_mut().zip([50.0, 99.0, 99.9]) {
                values.push(measured.latency_us(percentile));
            }
            if row.work == Work::Transaction && shape.connections == 1 && shape.pipeline == 1 {
                row.commit_loop.push(self.commit_loop.per_second(args.seconds)?);
            }
        }
        if backwards {
            measure_echoes(&mut echoes)?;
        }
        for row in rows {
            let echo = echoes
                .iter()
                .find(|(balances, _)| (row.work == Work::Balance) == *balances);
            row.echo_per_second
                .extend(echo.and_then(|(_, per_second)| *per_second));
        }
        Ok(())
    }

    fn measure(&self, server: &Server, load: &Load) -> Result<Measured, Box<dyn Error>> {
        Ok(self.runtime.block_on(make(server.address(), load))?.conserved()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Args {
        #[command(flatten)]
        bench: BenchArgs,
    }

    fn shapes(arguments: &[&str]) -> Vec<(u32, u32)> {
        let args = Args::try_parse_from([&["bench"], arguments].concat()).unwrap();
        let pair = |shape: Shape| (shape.connections, shape.pipeline);
        args.bench.shapes().into_iter().map(pair).collect()
    }

    #[test]
    fn every_number_of_connections_goes_with_every_pipeline() {
        assert_eq!(shapes(&[]), [(1, 1), (16, 1), (64, 1), (256, 1), (64, 16)]);
        assert_eq!(shapes(&["--connections", "4,8"]), [(4, 1), (8, 1)]);
        assert_eq!(
            shapes(&["--connections", "4,8", "--pipeline", "1,16"]),
            [(4, 1), (4, 16), (8, 1), (8, 16)]
        );
        assert_eq!(shapes(&["--pipeline", "2"]), [(1, 2), (16, 2), (64, 2), (256, 2)]);
    }
}
