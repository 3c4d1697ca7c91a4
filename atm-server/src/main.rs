//! The program: parses, runs one command, and maps its result to an exit code.

use std::process::ExitCode;

use atm_server::{commands, settings};

fn main() -> ExitCode {
    match settings::parse(std::env::args_os()) {
        Ok((args, settings)) => commands::run(args, &settings).into(),
        Err(refused) => refused.exit(),
    }
}
