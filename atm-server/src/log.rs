//! The log, on standard error: how much is told, in which form, and how that changes while the server runs.
//!
//! A process has one log, as `tracing` has one subscriber for a process; so what changes it is a function and needs no handle.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::str::FromStr;
use std::sync::OnceLock;

use clap::ValueEnum;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt, reload};

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[value(help = None::<&str>)]
    Text,
    /// For programs: an object of JSON.
    #[value(help = None::<&str>)]
    Json,
}

/// Levels by name, from the quietest on.
const LEVELS: [(&str, LevelFilter); 6] = [
    ("off", LevelFilter::OFF),
    ("error", LevelFilter::ERROR),
    ("warn", LevelFilter::WARN),
    ("info", LevelFilter::INFO),
    ("debug", LevelFilter::DEBUG),
    ("trace", LevelFilter::TRACE),
];

/// The parts of the program that write to the log.
const PARTS: [&str; 2] = ["atm_server", "bank_core"];

/// How much is logged: a level, and others for parts of the program. The parts that are not named are logged from `info` on
/// unless a level stands alone. Nothing is guessed: what is no level and no part is refused, since a filter that is misspelt
/// would silence the log.
#[derive(Clone, Debug, PartialEq)]
pub struct LogFilter(Targets);

/// Why what is logged is not as it was asked for.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// No level.
    #[error("\"{0}\" is no level: off, error, warn, info, debug and trace are")]
    NoLevel(String),
    /// No part of the program.
    #[error(
        "\"{0}\" is no part of the program: atm_server and bank_core are, and their modules, such as bank_core::journal"
    )]
    NoPart(String),
    /// Another program's log.
    #[error("this process has a log of another kind, whose level cannot be changed here")]
    NotOurs,
}

impl FromStr for LogFilter {
    type Err = LogError;

    fn from_str(text: &str) -> Result<LogFilter, LogError> {
        let mut targets = Targets::new().with_default(LevelFilter::INFO);
        for directive in text.split(',').map(str::trim) {
            targets = match directive.split_once('=') {
                None => targets.with_default(level(directive)?),
                Some((part, its)) => targets.with_target(known(part)?, level(its)?),
            };
        }
        Ok(LogFilter(targets))
    }
}

fn level(name: &str) -> Result<LevelFilter, LogError> {
    let known = LEVELS
        .into_iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name));
    known
        .map(|(_, level)| level)
        .ok_or_else(|| LogError::NoLevel(name.to_owned()))
}

fn known(part: &str) -> Result<&str, LogError> {
    let program = part.split("::").next().unwrap_or_default();
    if PARTS.contains(&program) {
        Ok(part)
    } else {
        Err(LogError::NoPart(part.to_owned()))
    }
}

static FILTER: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();

/// Begins to log to standard error, unless whoever embeds the commands has set up a log already.
pub fn to_stderr(filter: LogFilter, format: LogFormat) {
    let (filter, handle) = reload::Layer::new(filter.0);
    let lines = fmt::layer().with_writer(|| LossyStderr);
    let plain = fmt::layer()
        .with_writer(|| LossyStderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false);
    let lines = match format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        LogFormat::Text if stderr_is_systemds_journal() => plain.without_time().boxed(),
        LogFormat::Text => plain.boxed(),
    };
    if Registry::default().with(filter).with(lines).try_init().is_ok() {
        let _ = FILTER.set(handle);
    }
}

/// What is logged now, as [`LogFilter`] reads it.
///
/// # Errors
/// [`LogError::NotOurs`].
pub fn present() -> Result<String, LogError> {
    let handle = FILTER.get().ok_or(LogError::NotOurs)?;
    handle
        .with_current(Targets::to_string)
        .map_err(|_| LogError::NotOurs)
}

/// Changes what is logged, from the next event on and until the process ends.
///
/// # Errors
/// [`LogError::NotOurs`].
pub fn change(filter: LogFilter) -> Result<(), LogError> {
    let handle = FILTER.get().ok_or(LogError::NotOurs)?;
    // Told before it is done, lest a log that falls silent should not say why.
    tracing::info!(from = present()?, to = %filter.0, "changes the log level");
    handle.reload(filter.0).map_err(|_| LogError::NotOurs)
}

/// Whether the journal of systemd reads standard error, which puts its own time before each line. `JOURNAL_STREAM` names the
/// device and inode that it reads; a child whose standard error was redirected has the variable, too.
fn stderr_is_systemds_journal() -> bool {
    let stream = std::env::var("JOURNAL_STREAM").ok();
    let ours = || {
        let stderr = File::from(io::stderr().as_fd().try_clone_to_owned().ok()?);
        let metadata = stderr.metadata().ok()?;
        Some(format!("{}:{}", metadata.dev(), metadata.ino()))
    };
    stream.is_some_and(|stream| Some(stream) == ours())
}

/// Standard error, for a log that may be lost: a full disk or a reader that has gone must not end the bank.
struct LossyStderr;

impl Write for LossyStderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let _ = io::stderr().write_all(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    fn filter(text: &str) -> Result<LogFilter, LogError> {
        text.parse()
    }

    #[test]
    fn a_filter_is_a_level_and_others_for_parts() {
        let check = |text: &str, expected: [bool; 3]| {
            let LogFilter(targets) = filter(text).unwrap();
            let told = [
                targets.would_enable("atm_server::session", &Level::INFO),
                targets.would_enable("bank_core::journal", &Level::DEBUG),
                targets.would_enable("bank_core::pin", &Level::WARN),
            ];
            assert_eq!(told, expected, "{text}");
            assert_eq!(filter(&targets.to_string()), filter(text), "it can be fed back");
        };
        check("info", [true, false, true]);
        check("DEBUG", [true, true, true]);
        check("off", [false, false, false]);
        check("bank_core::journal=debug", [true, true, true]);
        check("error, bank_core::journal=trace", [false, true, false]);
    }

    #[test]
    fn what_is_misspelt_is_refused_and_named() {
        for wrong in ["", "inof", "info,", "3", "info,debgu", "bank_core=loud"] {
            assert!(matches!(filter(wrong), Err(LogError::NoLevel(_))), "{wrong}");
        }
        for wrong in ["bank=debug", "=debug", "atm-server=info", "info,tokio=debug"] {
            assert!(matches!(filter(wrong), Err(LogError::NoPart(_))), "{wrong}");
        }
    }
}
