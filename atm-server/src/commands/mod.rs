//! What each command does.

mod administer;
mod backup;
mod certificate;
mod day_report;
mod dispute;
mod load;
mod manual;
mod peppers;
mod restore;
mod serve;
mod statement;
mod terminals;
mod verify;

use std::io::{self, Write};
use std::process::ExitCode;

use bank_core::memory;

use crate::args::{Args, Command};
use crate::log;
use crate::settings::Settings;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// As it should.
    Done = 0,
    /// It did not do it; the reason was written to standard error, or to standard output by `verify`.
    Failed = 1,
    /// What it was asked for makes no sense.
    Usage = 2,
    /// A commit to the bank file failed while serving.
    Poisoned = 3,
    /// Whether a running server did it is not known.
    InDoubt = 5,
}

impl From<Ended> for ExitCode {
    fn from(ended: Ended) -> ExitCode {
        ExitCode::from(ended as u8)
    }
}

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Runs a command and tells a person what went wrong, if anything did.
pub fn run(args: Args, settings: &Settings) -> Ended {
    log::to_stderr(args.log.log_level, args.log.log_format);
    if let Err(error) = memory::hide() {
        tracing::warn!(%error, "the memory, with PINs and keys, could not be hidden from core dumps");
    }
    let result = match args.command {
        Command::Load(args) => load::load(args),
        Command::Generate(args) => load::generate(args),
        Command::Serve(args) => return serve::serve(args, settings),
        Command::Verify(args) => verify::verify(&args),
        Command::Statement(args) => statement::statement(&args),
        Command::DayReport(args) => day_report::day_report(&args),
        Command::Dispute(args) => dispute::dispute(&args),
        Command::Backup(args) => backup::backup(&args),
        Command::Restore(args) => restore::restore(args),
        Command::AddTerminal(args) => terminals::add_terminal(&args),
        Command::Admin(args) => administer::administer(args),
        Command::Certificate(args) => certificate::certificate(&args),
        Command::RotatePepper(args) => peppers::rotate_pepper(args),
        Command::Completions { shell } => manual::completions(shell),
        Command::Man { dir } => manual::man(&dir),
    };
    result.unwrap_or_else(|error| {
        // A reader that has seen enough, such as `head`, is no failure.
        if error
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
        {
            return Ended::Done;
        }
        failed(&*error)
    })
}

fn failed(error: &(dyn std::error::Error + 'static)) -> Ended {
    let _ = writeln!(io::stderr(), "atm-server: {error}");
    Ended::Failed
}

/// Tells a result. It is done whether or not anybody is left to read that.
fn say(text: std::fmt::Arguments<'_>) {
    let _ = writeln!(io::stdout(), "{text}");
}
