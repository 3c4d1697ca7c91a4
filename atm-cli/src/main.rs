//! The program: parses, runs the menu or one command, and maps its result to an exit code.

use std::io::ErrorKind;
use std::process::ExitCode;

use atm_cli::args::{Args, Command};
#[cfg(feature = "demo")]
use atm_cli::demo;
use atm_cli::one_shot::{self, Ended};
use atm_cli::{prompt, terminal};
use bank_core::memory;
use clap::Parser;

fn main() -> ExitCode {
    run(Args::parse())
        .unwrap_or_else(|error| {
            eprintln!("atm-cli: {error}");
            Ended::Usage
        })
        .into()
}

fn run(args: Args) -> Result<Ended, Box<dyn std::error::Error>> {
    memory::hide()?;
    let Args { bank, menu, command } = args;
    if command.is_some() && menu.is_given() {
        return Err("the options of the menu are of no use to a command: leave them out".into());
    }
    Ok(match command {
        None => {
            let config = menu.config(bank.config("ATM-1")?)?;
            terminal::run(config, prompt::for_stdin().as_mut())
        }
        Some(Command::OneShot(command)) => one_shot::run(bank.config("CLI")?, &command),
        #[cfg(feature = "demo")]
        Some(Command::Demo) => demo::run(bank.config("ATM-1")?.terminal),
        Some(Command::Manual(manual)) => match manual.write() {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                eprintln!("atm-cli: {error}");
                Ended::Failed
            }
            // A reader that has seen enough, such as `head`, is no failure.
            _ => Ended::Approved,
        },
    })
}
