//! The program: parses, runs one command, and maps its result to an exit code.

use std::process::ExitCode;

use atm_cli::{args, one_shot};
use clap::Parser;

fn main() -> ExitCode {
    one_shot::run(&args::Args::parse()).into()
}
