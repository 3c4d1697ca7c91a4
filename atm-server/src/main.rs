//! The program: parses, runs one command, and maps its result to an exit code.

use std::process::ExitCode;

use atm_server::{args, commands};
use clap::Parser;

fn main() -> ExitCode {
    commands::run(args::Args::parse()).into()
}
