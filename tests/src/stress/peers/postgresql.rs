//! PostgreSQL: a deposit or a withdrawal is one call of one function, prepared, by PostgreSQL's own `pgbench`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::available_parallelism;
use std::time::Duration;

use rustix::process::Signal;

use super::programs::{Daemon, Missing, Places, directory, hand_over, output, server_command};
use super::{OPENING, Work};
use crate::stress::load::Spread;

const SCHEMA: &str = include_str!("postgresql.sql");
const CHECK: &str = include_str!("postgresql_check.sql");
/// As the bank's load: a connection stays with its account while a measurement lasts.
const UNIFORM: &str = "\\set account abs(hash(:client_id, :round)) % :accounts + 1\n";
const HOT: &str = "\\set account 1\n";
const REQUEST: &str =
    "\\set amount random(1, 100) * (2 * random(0, 1) - 1)\nSELECT post(:account, :amount);\n";

/// Its programs.
pub(super) struct Programs {
    setpriv: PathBuf,
    initdb: PathBuf,
    postgres: PathBuf,
    psql: PathBuf,
    pgbench: PathBuf,
}

impl Programs {
    pub(super) fn find(places: &Places) -> Result<Programs, Missing> {
        let needed = [
            ("setpriv", "util-linux"),
            ("initdb", "postgresql"),
            ("postgres", "postgresql"),
            ("psql", "postgresql"),
            ("pgbench", "postgresql"),
        ];
        let [setpriv, initdb, postgres, psql, pgbench] = places.find("PostgreSQL", needed)?;
        Ok(Programs {
            setpriv,
            initdb,
            postgres,
            psql,
            pgbench,
        })
    }
}

/// A running PostgreSQL with the accounts.
pub(super) struct PostgreSql {
    programs: Programs,
    server: Daemon,
    password: String,
    /// Where the scripts are.
    scripts: PathBuf,
    work: Work,
    /// What `pgbench` says that it has done.
    requests: u64,
}

impl PostgreSql {
    /// Starts it in a directory of its own below `place`, and opens the accounts.
    pub(super) async fn start(programs: Programs, place: &Path, work: Work) -> Result<PostgreSql, String> {
        let home = directory(place, "postgresql")?;
        let (data, password_file) = (home.join("data"), home.join("password"));
        let password = format!("{:032x}", rand::random::<u128>());
        let write = |path: &Path, text: &str| {
            fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
        };
        write(&password_file, &password)?;
        hand_over(&password_file).map_err(|error| format!("{}: {error}", password_file.display()))?;
        write(&place.join("uniform.sql"), &format!("{UNIFORM}{REQUEST}"))?;
        write(&place.join("hot.sql"), &format!("{HOT}{REQUEST}"))?;

        let mut initdb = server_command(&programs.setpriv, &programs.initdb);
        initdb.args([
            "--username=bank",
            "--auth=scram-sha-256",
            "--no-locale",
            "--encoding=UTF8",
        ]);
        initdb.arg("--pwfile").arg(&password_file).arg(&data);
        output(initdb).await?;
        let postgres = |port: u16| {
            let mut postgres = server_command(&programs.setpriv, &programs.postgres);
            postgres.arg("-D").arg(&data).args(["-p", &port.to_string()]);
            let max_connections = format!("max_connections={}", work.connections + 10);
            for setting in [
                "listen_addresses=127.0.0.1",
                "unix_socket_directories=",
                // What makes an answer durable: the defaults.
                "fsync=on",
                "synchronous_commit=on",
                "full_page_writes=on",
                // Memory for all accounts, and no checkpoint while we measure.
                "shared_buffers=512MB",
                "max_wal_size=16GB",
                "checkpoint_timeout=1h",
                &max_connections,
            ] {
                postgres.args(["-c", setting]);
            }
            postgres
        };
        let server = Daemon::start(postgres, "ready to accept connections", Signal::QUIT).await?;
        let postgresql = PostgreSql {
            programs,
            server,
            password,
            scripts: place.to_owned(),
            work,
            requests: 0,
        };
        postgresql.psql(SCHEMA).await?;
        Ok(postgresql)
    }

    /// Its name and version.
    pub(super) async fn version(&self) -> Result<String, String> {
        // "15.18 (Debian 15.18-0+deb12u1)"
        let version = self.psql("SHOW server_version").await?;
        let number = version.split_whitespace().next().unwrap_or_default();
        Ok(format!("PostgreSQL {number}"))
    }

    /// Requests a second.
    pub(super) async fn measure(&mut self, spread: Spread, round: u32) -> Result<f64, String> {
        let mut pgbench = self.client(&self.programs.pgbench);
        let script = match spread {
            Spread::Hot => "hot.sql",
            _ => "uniform.sql",
        };
        // It reports every second. In the first its connections are made, and each learns of the tables and the function:
        // that second is not counted. Of the last it does not always report.
        let seconds = 2.0
            + self
                .work
                .duration
                .max(Duration::from_secs(1))
                .as_secs_f64()
                .ceil();
        let threads = available_parallelism().map_or(1, usize::from);
        pgbench.args(["--no-vacuum", "--protocol=prepared"]);
        pgbench.args(["--client", &self.work.connections.to_string()]);
        pgbench.args(["--jobs", &threads.to_string()]);
        pgbench.args(["--time", &seconds.to_string(), "--progress", "1"]);
        pgbench.args(["--define", &format!("round={round}")]);
        pgbench.args(["--define", &format!("accounts={}", self.work.accounts)]);
        pgbench.arg("--file").arg(self.scripts.join(script));
        let said = output(pgbench).await?;
        let (requests, per_second) = figures(&said.stdout, &said.stderr)
            .ok_or_else(|| format!("pgbench said: {}{}", said.stderr, said.stdout))?;
        self.requests += requests;
        Ok(per_second)
    }

    /// That all that was asked for is there and adds up. Gives how much that is.
    pub(super) async fn check(&self) -> Result<u64, String> {
        let found = self.psql(CHECK).await?.trim().to_owned();
        let expected = format!("{}|0", self.requests);
        if found != expected {
            return Err(format!(
                "PostgreSQL did not do its work: rows of history and wrong balances should be {expected} and are {found}"
            ));
        }
        Ok(self.requests)
    }

    async fn psql(&self, sql: &str) -> Result<String, String> {
        let mut psql = self.client(&self.programs.psql);
        psql.args(["--quiet", "--no-psqlrc", "--tuples-only", "--no-align"]);
        // A file, since `--command` knows no variables.
        let script = self.scripts.join("psql.sql");
        fs::write(&script, sql).map_err(|error| format!("{}: {error}", script.display()))?;
        psql.arg("--file").arg(&script);
        psql.args(["--set", "ON_ERROR_STOP=1"]);
        psql.args(["--set", &format!("opening={OPENING}")]);
        psql.args(["--set", &format!("accounts={}", self.work.accounts)]);
        Ok(output(psql).await?.stdout)
    }

    fn client(&self, program: &Path) -> Command {
        let mut client = Command::new(program);
        client
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", self.server.port.to_string())
            .env("PGUSER", "bank")
            .env("PGDATABASE", "postgres")
            .env("PGPASSWORD", &self.password);
        client
    }
}

/// The number of transactions in the report of `pgbench`, and how many a second in what it said of its progress after
/// it had said so once. A busy machine may make it late: each rate counts for the time since the one before.
fn figures(report: &str, progress: &str) -> Option<(u64, f64)> {
    let requests = report
        .lines()
        .find_map(|line| line.strip_prefix("number of transactions actually processed: "))?;
    // "progress: 2.0 s, 9013.6 tps, lat 6.731 ms stddev 4.291, 0 failed"
    let told = |line: &str| -> Option<(f64, f64)> {
        let mut parts = line.split(", ");
        let at = parts.next()?.strip_suffix(" s")?.parse().ok()?;
        Some((at, parts.next()?.strip_suffix(" tps")?.parse().ok()?))
    };
    let told: Vec<(f64, f64)> = progress
        .lines()
        .filter_map(|line| line.strip_prefix("progress: "))
        .map(told)
        .collect::<Option<_>>()?;
    let ((first, _), (last, _)) = (told.first()?, told.last()?);
    let done: f64 = told
        .windows(2)
        .map(|pair| (pair[1].0 - pair[0].0) * pair[1].1)
        .sum();
    Some((requests.parse().ok()?, done / (last - first))).filter(|_| last > first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_of_all_seconds_but_the_first() {
        let report = "number of clients: 64\nnumber of transactions actually processed: 23477\n\
            number of failed transactions: 0 (0.000%)\ntps = 8385.585374 (without initial connection time)\n";
        let progress = "pgbench (15.18)\nprogress: 1.0 s, 6091.7 tps, lat 6.610 ms stddev 7.515, 0 failed\n\
            progress: 2.0 s, 9013.5 tps, lat 6.731 ms stddev 4.291, 0 failed\n\
            progress: 3.0 s, 8371.5 tps, lat 7.392 ms stddev 4.608, 0 failed\n";
        assert_eq!(figures(report, progress), Some((23_477, 8692.5)));
        assert_eq!(
            figures(report, progress.split_inclusive('\n').nth(1).unwrap()),
            None
        );
        assert_eq!(figures("pgbench: error", progress), None);
        let late = "progress: 1.0 s, 10.0 tps, lat 1 ms\nprogress: 4.0 s, 100.0 tps, lat 1 ms\nprogress: 5.0 s, 500.0 tps, lat 1 ms\n";
        assert_eq!(figures(report, late), Some((23_477, 200.0)));
    }
}
