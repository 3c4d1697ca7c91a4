//! Registering a terminal in a bank file.

use bank_core::{Moment, TerminalSecret, bank_file};

use super::{Ended, Error, say};
use crate::args::AddTerminalArgs;

pub(super) fn add_terminal(args: &AddTerminalArgs) -> Result<Ended, Error> {
    let AddTerminalArgs {
        terminal,
        bank,
        secret_file,
        replace,
    } = args;
    let secret = TerminalSecret::create(secret_file)?;
    let added = bank_file::add_terminal(&bank.bank, *terminal, secret.hash(), Moment::now().time, *replace);
    if let Err(error) = added {
        // It opens nothing, so nobody is to take it for one that does.
        let _ = std::fs::remove_file(secret_file);
        return Err(error.into());
    }
    say(format_args!(
        "terminal {terminal} may come in with the secret in {}",
        secret_file.display()
    ));
    Ok(Ended::Done)
}
