//! Redis: a deposit or a withdrawal is one Lua script, by Redis's own `redis-benchmark`.

use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use super::programs::{Daemon, Missing, Places, directory, output, server_command};
use super::{OPENING, Work};
use crate::stress::load::Spread;

const POST: &str = include_str!("redis.lua");
const OPEN: &str = include_str!("redis_open.lua");
const CHECK: &str = include_str!("redis_check.lua");
/// Requests from which to guess how many fill a measurement.
const FIRST_REQUESTS: u64 = 1000;

/// Its programs.
pub(super) struct Programs {
    setpriv: PathBuf,
    server: PathBuf,
    cli: PathBuf,
    benchmark: PathBuf,
}

impl Programs {
    pub(super) fn find(places: &Places) -> Result<Programs, Missing> {
        let needed = [
            ("setpriv", "util-linux"),
            ("redis-server", "redis-server"),
            ("redis-cli", "redis-server"),
            ("redis-benchmark", "redis-server"),
        ];
        let [setpriv, server, cli, benchmark] = places.find("Redis", needed)?;
        Ok(Programs {
            setpriv,
            server,
            cli,
            benchmark,
        })
    }
}

/// A running Redis with the accounts.
pub(super) struct Redis {
    programs: Programs,
    server: Daemon,
    /// The script's name in Redis.
    post: String,
    work: Work,
    /// What `redis-benchmark` was told to do.
    requests: u64,
    /// What came of it last.
    per_second: f64,
}

impl Redis {
    /// Starts it in a directory of its own below `place`, and opens the accounts.
    pub(super) async fn start(programs: Programs, place: &Path, work: Work) -> Result<Redis, String> {
        let home = directory(place, "redis")?;
        let server = |port: u16| {
            let mut server = server_command(&programs.setpriv, &programs.server);
            server.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--dir"]);
            server.arg(&home);
            // What makes an answer durable; and nothing else is written, nor rewritten while we measure.
            server.args(["--appendonly", "yes", "--appendfsync", "always"]);
            server.args(["--save", "", "--auto-aof-rewrite-percentage", "0"]);
            server
        };
        let server = Daemon::start(server, "eady to accept connections", Signal::KILL).await?;
        let mut redis = Redis {
            programs,
            server,
            post: String::new(),
            work,
            requests: 0,
            per_second: 0.0,
        };
        let accounts = work.accounts.to_string();
        let opened = redis
            .cli(&["EVAL", OPEN, "0", &accounts, &OPENING.to_string()])
            .await?;
        if opened != "opened" {
            return Err(format!("Redis does not open the accounts: {opened}"));
        }
        redis.post = redis.cli(&["SCRIPT", "LOAD", POST]).await?;
        redis.benchmark(Spread::Uniform, FIRST_REQUESTS).await?;
        Ok(redis)
    }

    /// Its name and version.
    pub(super) async fn version(&self) -> Result<String, String> {
        let info = self.cli(&["INFO", "server"]).await?;
        let version = info.lines().find_map(|line| line.strip_prefix("redis_version:"));
        Ok(format!("Redis {}", version.unwrap_or_default().trim()))
    }

    /// Requests a second.
    pub(super) async fn measure(&mut self, spread: Spread) -> Result<f64, String> {
        let requests = (self.per_second * self.work.duration.as_secs_f64()) as u64;
        self.benchmark(spread, requests.max(FIRST_REQUESTS)).await?;
        Ok(self.per_second)
    }

    /// `redis-benchmark` knows no duration, only a number of requests. With more threads than one it was no faster, and
    /// looked at its clock only every quarter of a second.
    async fn benchmark(&mut self, spread: Spread, requests: u64) -> Result<(), String> {
        // As in the bank's load, as many accounts are used as there are connections.
        let random = u64::from(self.work.connections).clamp(2, self.work.accounts);
        let account = match spread {
            Spread::Hot => "000000000000",
            _ => "__rand_int__",
        };
        let mut benchmark = Command::new(&self.programs.benchmark);
        benchmark.args(["-p", &self.server.port.to_string(), "--csv"]);
        benchmark.args(["-c", &self.work.connections.to_string()]);
        benchmark.args(["-n", &requests.to_string(), "-r", &random.to_string()]);
        benchmark.args(["EVALSHA", &self.post, "1"]);
        benchmark.args([&format!("account:{account}"), "__rand_int__", "__rand_int__"]);
        let report = output(benchmark).await?.stdout;
        self.per_second = rate(&report).ok_or_else(|| format!("redis-benchmark said: {report}"))?;
        self.requests += requests;
        Ok(())
    }

    /// That all that was asked for is there and adds up. Gives how much that is.
    pub(super) async fn check(&self) -> Result<u64, String> {
        let accounts = self.work.accounts.to_string();
        let found = self
            .cli(&["EVAL", CHECK, "0", &accounts, &OPENING.to_string()])
            .await?;
        let expected = format!("{}\n0", self.requests);
        if found != expected {
            return Err(format!(
                "Redis did not do its work: entries of history and wrong accounts should be {expected} and are {found}"
            ));
        }
        Ok(self.requests)
    }

    async fn cli(&self, arguments: &[&str]) -> Result<String, String> {
        let mut cli = Command::new(&self.programs.cli);
        cli.args(["-p", &self.server.port.to_string()]).args(arguments);
        Ok(output(cli).await?.stdout.trim().to_owned())
    }
}

/// How many a second, of what `redis-benchmark --csv` reports: after the command, which has no comma.
fn rate(report: &str) -> Option<f64> {
    let last = report.lines().last()?;
    last.split(',')
        .nth(1)?
        .trim_matches('"')
        .parse()
        .ok()
        .filter(|rate| f64::is_finite(*rate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_read_from_the_report() {
        let report =
            "\"test\",\"rps\",\"avg_latency_ms\"\n\"EVALSHA 3c 2 a:__rand_int__\",\"42613.64\",\"1.429\"\n";
        assert_eq!(rate(report), Some(42_613.64));
        assert_eq!(rate("Could not connect"), None);
    }
}
