//! `atm-stress run`: one load on one server, watched, and a verdict.

use std::error::Error;
use std::fs;
use std::io::{IsTerminal, stderr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::load::{Load, MOST_OUTSTANDING, Measured, Mix, Payees, Spread, Step, us, watch};
use super::{echo, plot, seconds};
use crate::{Server, TestBank};

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
#[command(after_help = format!(
    "In a closed loop (without --rate) a connection waits for its answers before it asks again, and latency counts from \
     sending. In an open loop (--rate) requests are due at times that a seed fixes and no server moves (a Poisson process on each \
     connection); latency counts from when a request was due, so that a server that stalls cannot hide it. A connection \
     goes on sending until {MOST_OUTSTANDING} of its requests are unanswered. The table says how late requests were sent (that is in \
     their latency, and the most that this program can have added to it), and how many were due and never sent.\n\n\
     A connection picks its account once, when it logs in. A transfer goes to the account of another connection, picked \
     each time. Balances are read before and after: each must have moved by exactly what was approved."
))]
pub struct RunArgs {
    /// A server with a bank of "atm-server generate" [default: one of its own, in a temporary directory]
    #[arg(long, value_name = "ADDR")]
    pub server: Option<String>,
    /// Instead of a bank, load a bare server that answers every frame at once: the limit of what any server can do
    #[arg(long, conflicts_with = "server")]
    pub echo: bool,
    /// Connections at once
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub connections: u32,
    /// Closed loop: requests that a connection sends before it waits for their answers
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub pipeline: u32,
    /// Open loop: requests a second, over all connections
    #[arg(long, value_name = "R", conflicts_with = "pipeline", value_parser = number::<1, 10_000_000>)]
    pub rate: Option<f64>,
    /// How many seconds
    #[arg(long, value_name = "S", default_value = "10", value_parser = seconds)]
    pub duration: Duration,
    /// How many seconds before that the load is made already, but not counted
    #[arg(long, value_name = "S", default_value = "0", value_parser = seconds)]
    pub warm_up: Duration,
    /// What is asked for, by weight: deposit, withdraw, transfer, balance
    #[arg(long, value_name = "MIX", default_value = "deposit=50,withdraw=50")]
    pub mix: Mix,
    /// Which account a connection picks
    #[arg(long, value_enum, default_value = "uniform")]
    pub accounts: SpreadArg,
    /// With zipf: the exponent; the greater, the more connections share the first accounts
    #[arg(long, value_name = "E", default_value_t = 1.0, value_parser = number::<0, 10>)]
    pub zipf_exponent: f64,
    /// How many accounts the bank has
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    pub cards: u64,
    /// For the choices made at random, and the times at which requests are due
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// Write the figures to a file, as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Draw the throughput over time and the latency by percentile into a file, as SVG
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
}

/// See [`Spread`].
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum SpreadArg {
    /// Any, all alike
    Uniform,
    /// Account k with a weight of 1/k^exponent: account 1 most often
    Zipf,
    /// Account 1, for all connections (a transfer has nobody to go to, and is declined)
    Hot,
}

fn number<const LEAST: u32, const MOST: u32>(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|number| (f64::from(LEAST)..=f64::from(MOST)).contains(number))
        .ok_or_else(|| format!("not a number from {LEAST} to {MOST}"))
}

/// Makes the load and tells how it went: on standard error while it lasts, on standard output at the end. True if
/// the money is all there.
///
/// # Errors
/// If the load could not be made.
pub fn run(args: &RunArgs) -> Result<bool, Box<dyn Error>> {
    if args.duration.is_zero() {
        return Err("--duration 0: there is nothing to measure in no time".into());
    }
    let load = Load {
        connections: args.connections as usize,
        pipeline: args.pipeline as usize,
        rate: args.rate,
        warm_up: args.warm_up,
        duration: args.duration,
        mix: args.mix.clone(),
        spread: match args.accounts {
            SpreadArg::Uniform => Spread::Uniform,
            SpreadArg::Zipf => Spread::Zipf(args.zipf_exponent),
            SpreadArg::Hot => Spread::Hot,
        },
        payees: Payees::Sessions,
        accounts: if args.echo { 0 } else { args.cards },
        seed: args.seed,
    };
    // A connection has a socket and perhaps a timer. Where the limit cannot be raised, opening the next one says so.
    let _ = rlimit::increase_nofile_limit(2 * u64::from(args.connections) + 100);
    let (server, _own) = match &args.server {
        Some(address) => (address.clone(), None),
        None => {
            let own = Own::start(args);
            (own.server.address().to_owned(), Some(own))
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut live = Live::new();
    let measured = runtime.block_on(watch(&server, &load, |step, latency| live.show(step, latency)));
    live.end();
    let measured = measured?;
    print!("{}", table(&load, &measured));
    if let Some(path) = &args.json {
        write(path, &format!("{}\n", to_json(&load, &measured)))?;
    }
    if let Some(path) = &args.plot {
        write(path, &plot::svg(&load, &headline(&load), &measured)?)?;
    }
    Ok(measured.not_conserved.is_empty())
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

/// A server that lasts as long as the load, and its bank.
struct Own {
    server: Server,
    _bank: Option<TestBank>,
}

impl Own {
    fn start(args: &RunArgs) -> Own {
        if args.echo {
            return Own {
                server: echo::start(None),
                _bank: None,
            };
        }
        let bank = TestBank::generate(args.cards);
        Own {
            server: bank.serve(),
            _bank: Some(bank),
        }
    }
}

/// The line on standard error: on a screen it is always the same one, in a file there is a new one each second.
struct Live {
    in_place: bool,
    answers: u64,
    from: Duration,
    latency: Option<Histogram<u64>>,
}

impl Live {
    fn new() -> Live {
        Live {
            in_place: stderr().is_terminal(),
            answers: 0,
            from: Duration::ZERO,
            latency: None,
        }
    }

    fn show(&mut self, step: &Step, latency: &Histogram<u64>) {
        const NEARLY_A_SECOND: Duration = Duration::from_millis(950);
        self.answers += step.answers;
        match &mut self.latency {
            Some(sum) => sum.add(latency).expect("all histograms have one range"),
            none => *none = Some(latency.clone()),
        }
        let time = step.to - self.from;
        if time < NEARLY_A_SECOND {
            return;
        }
        let mut line = format!(
            "{:>4.0} s  {:>9} answers/s",
            step.to.as_secs_f64(),
            grouped(self.answers as f64 / time.as_secs_f64())
        );
        match self.latency.take() {
            _ if step.warming_up => line += "   warming up",
            Some(latency) if !latency.is_empty() => {
                for (name, percentile) in [("p50", 50.0), ("p99", 99.0), ("p99.9", 99.9)] {
                    line += &format!("   {name} {} us", grouped(us(&latency, percentile)));
                }
            }
            _ => line += "   no answers",
        }
        if self.in_place {
            eprint!("\r\x1b[K{line}");
        } else {
            eprintln!("{line}");
        }
        (self.answers, self.from) = (0, step.to);
    }

    fn end(&self) {
        if self.in_place {
            eprint!("\r\x1b[K");
        }
    }
}

/// A whole number with commas between its thousands.
pub(super) fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// What load it is, in one line.
fn headline(load: &Load) -> String {
    let how = match load.rate {
        Some(rate) => format!("open loop at {} requests/s", grouped(rate)),
        None => format!("closed loop, {} outstanding each", load.pipeline),
    };
    let accounts = match load.spread {
        _ if load.accounts == 0 => "echo server".to_owned(),
        Spread::Uniform => format!("{} accounts, uniform", grouped(load.accounts as f64)),
        Spread::Zipf(exponent) => format!("{} accounts, zipf {exponent}", grouped(load.accounts as f64)),
        Spread::Hot => "one hot account".to_owned(),
    };
    format!(
        "{} connections, {how}; {}; {accounts}",
        load.connections, load.mix
    )
}

/// The percentiles that are told, with their names in the table and in JSON.
const PERCENTILES: [(&str, &str, f64); 6] = [
    ("p50", "p50", 50.0),
    ("p90", "p90", 90.0),
    ("p99", "p99", 99.0),
    ("p99.9", "p999", 99.9),
    ("p99.99", "p9999", 99.99),
    ("longest", "max", 100.0),
];

fn table(load: &Load, measured: &Measured) -> String {
    let mut table = headline(load) + "\n\n";
    let mut row = |name: &str, figure: String, remark: String| {
        table += format!("  {name:<12}  {figure:>11}  {remark}").trim_end();
        table += "\n";
    };
    let warm_up = match load.warm_up {
        Duration::ZERO => String::new(),
        time => format!(" after {} s of warm-up", time.as_secs_f64()),
    };
    if let Some(open) = &measured.open {
        row(
            "requests/s",
            grouped(open.offered),
            "were due, as a Poisson process".to_owned(),
        );
    }
    row(
        "answers/s",
        grouped(measured.per_second()),
        format!("in {:.1} s{warm_up}", measured.elapsed.as_secs_f64()),
    );
    row("answers", grouped(measured.answers as f64), String::new());
    row("declined", grouped(measured.declined as f64), String::new());
    if let Some(open) = &measured.open {
        let remark = match open.unsent {
            0 => "",
            _ => "were due, and are in no latency: the server cannot bear this rate",
        };
        row("never sent", grouped(open.unsent as f64), remark.to_owned());
    }
    table += "\n";
    table += match measured.open {
        None => "  latency               us\n",
        Some(_) => "  latency               us   of that, sent late\n",
    };
    for (name, _, percentile) in PERCENTILES {
        table += &format!("  {name:<12}  {:>11}", grouped(measured.latency_us(percentile)));
        if let Some(open) = &measured.open {
            table += &format!("  {:>19}", grouped(us(&open.lateness, percentile)));
        }
        table += "\n";
    }
    table += "\n";
    table += &match measured.not_conserved.as_slice() {
        _ if load.accounts == 0 => "there is no money behind an echo server".to_owned(),
        [] => "the money is all there".to_owned(),
        [(account, expected, found), rest @ ..] => format!(
            "MONEY IS NOT CONSERVED: account {account} should have {expected} minor units and has {found}; {} more",
            rest.len()
        ),
    };
    table + "\n"
}

fn to_json(load: &Load, measured: &Measured) -> Value {
    let latency = |histogram| {
        PERCENTILES
            .iter()
            .map(|&(_, name, percentile)| (name.to_owned(), json!(us(histogram, percentile))))
            .collect::<serde_json::Map<_, _>>()
    };
    let steps: Vec<_> = measured
        .steps
        .iter()
        .map(|step| {
            json!({
                "from_s": (step.from - load.warm_up).as_secs_f64(), "to_s": (step.to - load.warm_up).as_secs_f64(),
                "per_second": step.per_second(),
                "latency_us": { "p50": step.p50_us, "p99": step.p99_us, "p999": step.p999_us },
            })
        })
        .collect();
    let mut figures = json!({
        "load": headline(load), "connections": load.connections, "seed": load.seed, "mix": load.mix.to_string(),
        "warm_up_s": load.warm_up.as_secs_f64(), "seconds": measured.elapsed.as_secs_f64(),
        "answers": measured.answers, "declined": measured.declined, "per_second": measured.per_second(),
        "conserved": measured.not_conserved.is_empty(), "latency_us": latency(&measured.latency), "steps": steps,
    });
    match &measured.open {
        None => figures["pipeline"] = json!(load.pipeline),
        Some(open) => {
            figures["rate"] = json!(load.rate);
            figures["offered_per_second"] = json!(open.offered);
            figures["unsent"] = json!(open.unsent);
            figures["sent_late_us"] = json!(latency(&open.lateness));
        }
    }
    figures
}
