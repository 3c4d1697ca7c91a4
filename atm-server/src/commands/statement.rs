//! Showing what the journal holds of an account.

use std::io::{self, Write};

use bank_core::Account;
use bank_core::bank_file::{self, StatementLine};
use bank_core::row::{Contra, Outcome};

use super::{Ended, Error};
use crate::args::StatementArgs;

pub(super) fn statement(args: &StatementArgs) -> Result<Ended, Error> {
    let found = bank_file::read_statement(&args.bank.bank, args.account, args.lines)?;
    let Some((account, lines)) = found else {
        return Err(format!("the bank has no account {}", args.account).into());
    };
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{:>19}  {:>8}  {:<10}  {:>16}  {:>16}  {:<12}  {:<8}",
        "time (UTC)", "row", "kind", "amount", "balance", "other side", "terminal"
    )?;
    for line in lines.iter().rev() {
        write_line(&mut out, &account, line)?;
    }
    writeln!(
        out,
        "account {}: balance {} {}",
        account.id,
        account.currency.format(account.balance),
        account.currency
    )?;
    Ok(Ended::Done)
}

fn write_line(out: &mut impl Write, account: &Account, line: &StatementLine) -> io::Result<()> {
    let row = &line.row;
    let other = match line.side.contra {
        Contra::System(system) => system.name().to_owned(),
        Contra::Account(other) => other.to_string(),
    };
    let terminal = row
        .terminal
        .map(|terminal| terminal.to_string())
        .unwrap_or_default();
    let declined = match row.outcome {
        Outcome::Approved => String::new(),
        Outcome::Declined(decline) => format!("  declined: {}", decline.name()),
    };
    let (amount, balance) = (
        account.currency.format(line.side.amount),
        account.currency.format(line.side.balance),
    );
    let text = format!(
        "{:>19}  {:>8}  {:<10}  {amount:>16}  {balance:>16}  {other:<12}  {terminal:<8}{declined}",
        row.moment.time.to_string(),
        row.lsn,
        row.kind.name(),
    );
    writeln!(out, "{}", text.trim_end())
}
