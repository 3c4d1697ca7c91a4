//! `atm-stress bench`: the bank beside a bare echo server, in one run and in alternation, so that whatever the
//! machine does to one it does to the other.

use std::error::Error;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::runtime::Runtime;

use super::load::{Load, Measured, Spread, make};
use crate::{Server, TestBank, program};

/// Arguments of `bench`.
#[derive(Debug, clap::Args)]
pub struct BenchArgs {
    /// How often each is measured; the median is told
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// How long each measurement lasts
    #[arg(long, value_name = "S", default_value_t = 1.0)]
    pub seconds: f64,
    /// Numbers of connections
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "1,16,64,256"
    )]
    pub connections: Vec<u32>,
    /// How many accounts the bank has
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub accounts: u64,
}

/// One row of the table, still growing.
struct Row {
    work: &'static str,
    spread: Spread,
    per_second: Vec<f64>,
    ratios: Vec<f64>,
    p99_us: Vec<f64>,
}

/// Measures deposits and withdrawals, half and half, over all accounts and on one, as ratios to the echo server.
///
/// # Errors
/// If a load could not be made, or money was lost under it.
pub fn run(args: &BenchArgs) -> Result<(), Box<dyn Error>> {
    let duration =
        Duration::try_from_secs_f64(args.seconds).map_err(|_| "--seconds must be a number of seconds")?;
    let bank = TestBank::generate(args.accounts);
    let server = bank.serve_quietly();
    let mut echo = Command::new(program("atm-stress"));
    echo.arg("echo");
    let echo = Server::start(echo);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    println!(
        "deposits and withdrawals, {} accounts, {} rounds of {} s; medians",
        args.accounts, args.rounds, args.seconds
    );
    println!(
        "{:>11}  {:>8}  {:>9}  {:>9}  {:>22}  {:>8}",
        "connections", "accounts", "bank/s", "echo/s", "bank/echo (min-max)", "p99 us"
    );
    for &connections in &args.connections {
        let mut load = Load::new(connections as usize, args.accounts, duration);
        let mut echoed = Vec::new();
        let mut rows = [("uniform", Spread::Uniform), ("hot", Spread::Hot)].map(|(work, spread)| Row {
            work,
            spread,
            per_second: Vec::new(),
            ratios: Vec::new(),
            p99_us: Vec::new(),
        });
        for round in 0..args.rounds {
            load.seed = u64::from(round) << 32;
            let limit = measure(
                &runtime,
                &echo,
                &Load {
                    accounts: 0,
                    ..load.clone()
                },
            )?
            .per_second();
            echoed.push(limit);
            for row in &mut rows {
                let measured = measure(
                    &runtime,
                    &server,
                    &Load {
                        spread: row.spread,
                        ..load.clone()
                    },
                )?;
                if !measured.not_conserved.is_empty() {
                    return Err(format!("money is not conserved: {:?}", measured.not_conserved).into());
                }
                row.per_second.push(measured.per_second());
                row.ratios.push(measured.per_second() / limit);
                row.p99_us.push(measured.latency_us(99.0));
            }
        }
        for Row {
            work,
            per_second,
            ratios,
            p99_us,
            ..
        } in &rows
        {
            let (least, most) = ratios
                .iter()
                .fold((f64::MAX, 0f64), |(least, most), &r| (least.min(r), most.max(r)));
            let ratio = format!("{:.2} ({least:.2}-{most:.2})", median(ratios));
            println!(
                "{connections:>11}  {work:>8}  {:>9.0}  {:>9.0}  {ratio:>22}  {:>8.0}",
                median(per_second),
                median(&echoed),
                median(p99_us)
            );
        }
    }
    Ok(())
}

fn measure(runtime: &Runtime, server: &Server, load: &Load) -> Result<Measured, Box<dyn Error>> {
    Ok(runtime.block_on(make(server.address(), load, Arc::new(AtomicU64::new(0))))?)
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
