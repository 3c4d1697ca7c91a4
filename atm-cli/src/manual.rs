//! What makes the program known to a shell and to `man`, made from the command line's own definition.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{CommandFactory, Subcommand};

use crate::args::Args;

/// What makes the program known to a shell and to `man`.
#[derive(Debug, Subcommand)]
pub enum Manual {
    /// Write what makes a shell complete this program's commands and options
    Completions {
        /// Which shell
        #[arg(value_name = "SHELL")]
        shell: clap_complete::Shell,
    },
    /// Write manual pages, one for each command
    Man {
        /// Where they go; it is made if there is none
        #[arg(long, value_name = "DIRECTORY")]
        dir: PathBuf,
    },
}

impl Manual {
    /// Writes it, as the command line's own definition has it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self) -> io::Result<()> {
        match self {
            Manual::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(*shell, &mut Args::command(), "atm-cli", &mut script);
                io::stdout().write_all(&script)
            }
            Manual::Man { dir } => std::fs::create_dir_all(dir)
                .and_then(|()| clap_mangen::generate_to(Args::command(), dir))
                .map_err(|error| io::Error::other(format!("{}: {error}", dir.display()))),
        }
    }
}
