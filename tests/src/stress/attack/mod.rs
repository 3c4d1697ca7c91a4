//! `atm-stress attack`: what a stranger who can reach the port, and has read the source, would try. Each attack is made on a
//! server of its own, from this machine; the exit code tells whether it failed, as it must.

mod enumeration;
mod slowloris;

use std::error::Error;
use std::path::PathBuf;

use super::{Failure, with_figures};

/// Arguments of `attack`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The bank is made in the temporary directory and served by a server of its own. Exit code 1 if the attack succeeds in \
what must not happen on any machine; times are told and never judged alone."
)]
pub struct AttackArgs {
    #[command(subcommand)]
    what: What,
    /// Write the figures to a file, as JSON
    #[arg(long, value_name = "FILE", global = true)]
    json: Option<PathBuf>,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Thousands of clients that hold connections, drip bytes, or never read, while honest customers work on
    Slowloris(slowloris::SlowlorisArgs),
    /// Whether the time of a refused login tells an unknown card or a blocked one from a wrong PIN
    Enumeration(enumeration::EnumerationArgs),
}

/// Makes an attack, tells on standard output how it went, and writes the figures to a file if one is named.
///
/// # Errors
/// If the attack succeeded, or could not be made.
pub fn run(args: &AttackArgs) -> Result<(), Box<dyn Error>> {
    with_figures(args.json.as_deref(), || match &args.what {
        What::Slowloris(args) => slowloris::run(args),
        What::Enumeration(args) => enumeration::run(args),
    })
}
