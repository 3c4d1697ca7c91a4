//! `scale tail`: how late the latest answers are at a rate that the bank can bear, beside an echo server's at the same rate.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::load::Load;
use super::super::rounds::OverRounds;
use super::super::{echo, seconds};
use super::throughput::{Side, measure, runtime};
use super::{Failure, generate};

/// Arguments of `scale tail`.
#[derive(Debug, clap::Args)]
#[command(
    about = "The latest answers at a share of the greatest rate, beside an echo server's",
    long_about = "The latest answers at a share of the greatest rate, beside an echo server's.\n\nThe greatest rate is that of a closed \
loop. Then an open loop makes the same deposits and withdrawals at a share of it, on the bank and on the echo server in turns, with \
each latency counted from when its request was due. The rounds go on until the bank has brought its accounts table up to date with the \
journal as often as --checkpoints says."
)]
pub(super) struct TailArgs {
    /// How often both are measured
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// How long each measurement lasts
    #[arg(long, value_name = "S", default_value = "10", value_parser = seconds)]
    seconds: Duration,
    /// Connections at once
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// Accounts of the bank
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    accounts: u64,
    /// The share of the greatest rate
    #[arg(long, value_name = "SHARE", default_value_t = 0.5, value_parser = share)]
    share: f64,
    /// Account checkpoints that the bank must have passed at the end, whatever --rounds says; there is one every 524288 rows
    #[arg(long, value_name = "N", default_value_t = 2)]
    checkpoints: u64,
}

fn share(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|share| (0.01..=1.0).contains(share))
        .ok_or_else(|| "a number from 0.01 to 1 is wanted".to_owned())
}

/// `scale tail`.
pub(super) fn run(args: &TailArgs) -> Result<Value, Failure> {
    const GREATEST_RATE: Duration = Duration::from_secs(2);
    let bank = Side::serve(generate(args.accounts, &[]), args.accounts)?;
    let echo = echo::start(None);
    let runtime = runtime()?;
    let connections = args.connections as usize;
    let closed = Load::new(connections, args.accounts, GREATEST_RATE.min(args.seconds));
    let greatest = measure(&runtime, bank.server(), &closed)?.per_second();
    let rate = greatest * args.share;
    println!(
        "{connections} connections: {greatest:.0}/s in a closed loop; an open loop at {rate:.0}/s, in rounds of {} s",
        args.seconds.as_secs_f64()
    );
    println!(
        "{:>5}  {:>15}  {:>15}  {:>5}  {:>25}",
        "round", "bank p99.9 us", "echo p99.9 us", "ratio", "sent late, p99.9 us"
    );
    let (mut pairs, mut passed) = (Vec::new(), 0);
    while pairs.len() < args.rounds as usize || passed < args.checkpoints {
        let load = Load {
            rate: Some(rate),
            seed: (pairs.len() as u64) << 32,
            ..Load::new(connections, args.accounts, args.seconds)
        };
        let echoed = Load {
            accounts: 0,
            ..load.clone()
        };
        let bank_is_second = pairs.len() % 2;
        let mut p999 = [0.0; 2];
        let mut late = [0.0; 2];
        for which in [bank_is_second, 1 - bank_is_second] {
            let measured = match which {
                0 => measure(&runtime, bank.server(), &load)?,
                _ => measure(&runtime, &echo, &echoed)?,
            };
            p999[which] = measured.latency_us(99.9);
            late[which] = measured
                .open
                .map_or(0.0, |open| open.lateness.value_at_quantile(0.999) as f64 / 1000.0);
        }
        let [of, beside] = p999;
        pairs.push((of, beside));
        println!(
            "{:>5}  {of:>15.0}  {beside:>15.0}  {:>5.2}  {:>25}",
            pairs.len(),
            of / beside,
            format!("{:.0} and {:.0}", late[0], late[1])
        );
        passed = bank.checkpoints_passed()?;
    }
    let ratio = OverRounds::of_ratios(&pairs);
    println!("p99.9 of the bank \u{f7} of echo: {ratio}, over {passed} account checkpoints");
    Ok(json!({
        "connections": connections, "greatest_per_second": greatest, "per_second": rate, "rounds": pairs.len(),
        "seconds": args.seconds.as_secs_f64(), "account_checkpoints": passed,
        "p999_us": OverRounds::of(pairs.iter().map(|pair| pair.0)).to_json(),
        "echo_p999_us": OverRounds::of(pairs.iter().map(|pair| pair.1)).to_json(),
        "ratio": ratio.to_json(),
    }))
}
