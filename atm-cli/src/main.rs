//! The program: parses, runs the menu or one command, and maps its result to an exit code.

use std::process::ExitCode;

use atm_cli::args::{Args, Command};
#[cfg(feature = "demo")]
use atm_cli::demo;
use atm_cli::{one_shot, prompt, terminal};
use clap::Parser;

fn main() -> ExitCode {
    let Args {
        server,
        terminal,
        command,
    } = Args::parse();
    match command {
        None => terminal::run(&server, terminal, prompt::for_stdin().as_mut()).into(),
        Some(Command::OneShot(command)) => one_shot::run(&server, terminal, &command).into(),
        #[cfg(feature = "demo")]
        Some(Command::Demo) => demo::run(terminal).into(),
    }
}
