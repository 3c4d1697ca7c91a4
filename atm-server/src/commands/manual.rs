//! What makes the program known to a shell and to `man`, made from the command line's own definition.

use std::io::{self, Write};
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Ended, Error};
use crate::args::Args;

pub(super) fn completions(shell: Shell) -> Result<Ended, Error> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "atm-server", &mut script);
    io::stdout().write_all(&script)?;
    Ok(Ended::Done)
}

pub(super) fn man(directory: &Path) -> Result<Ended, Error> {
    std::fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(Args::command(), directory))
        .map_err(|error| format!("{}: {error}", directory.display()))?;
    Ok(Ended::Done)
}
