//! What a terminal says: plain lines within the screen's width.

use std::io::{self, Write};

use bank_core::protocol::Receipt;
use bank_core::{Currency, Lsn, Money, Timestamp, TxnId};

use crate::connection::{Outcome, StatementLine};
use crate::words::{kind_for_people, other_side, plain};

/// Writes to whoever stands there. That nobody reads any more will be noticed at the next question.
pub(crate) fn say(text: &str) {
    let _ = try_say(text);
}

/// Writes what must be read: fails if the screen is gone.
pub(crate) fn try_say(text: &str) -> io::Result<()> {
    let mut screen = io::stdout().lock();
    writeln!(screen, "{}", textwrap::fill(text, columns()))?;
    screen.flush()
}

/// The screen's width; of what is no screen, as much as anybody wants.
fn columns() -> usize {
    terminal_size::terminal_size().map_or(200, |(width, _)| usize::from(width.0))
}

/// Says what went wrong.
pub(crate) fn say_sorry(error: &dyn std::error::Error) {
    let text = plain(&error.to_string());
    let end = if text.ends_with('.') { "" } else { "." };
    say(&format!("\nSorry: {text}{end}"));
}

/// A sum with its currency.
pub(crate) fn sum(currency: Currency, money: Money) -> String {
    format!("{} {currency}", currency.format(money))
}

/// A name and a sum, as wide as a receipt.
pub(crate) fn sum_line(name: &str, currency: Currency, money: Money) -> String {
    format!("  {name:<14}{:>22}", sum(currency, money))
}

/// A receipt of at most 40 columns.
pub(crate) fn say_receipt(currency: Currency, name: &str, id: TxnId, outcome: &Outcome) {
    let (heading, reason, lsn, receipt): (_, _, &Lsn, &Receipt) = match outcome {
        Outcome::Approved(lsn, receipt) => ("APPROVED", None, lsn, receipt),
        Outcome::Declined {
            lsn,
            receipt,
            message,
            ..
        } => ("DECLINED", Some(plain(message)), lsn, receipt),
    };
    say(&format!("\n  {heading}"));
    if let Some(reason) = reason {
        say(&format!("  {reason}"));
    }
    for (name, minor) in [(name, receipt.amount), ("Balance", receipt.balance)] {
        say(&sum_line(name, currency, Money::from_minor(minor)));
    }
    say(&format!(
        "  {} UTC  row {lsn}",
        Timestamp::from_millis(receipt.time)
    ));
    say(&format!("  {id}"));
}

/// The newest lines last, as on paper; as wide as the screen allows.
pub(crate) fn say_statement(currency: Currency, balance: Money, lines: &[StatementLine]) {
    let columns = columns();
    say("");
    for line in lines.iter().rev() {
        let (amount, after) = (currency.format(line.amount), currency.format(line.balance));
        let declined = if line.outcome == 0 { "" } else { " declined" };
        let time = line.time.to_string();
        let text = if columns < 76 {
            // Month to minute, what, and how much.
            let time = time.get(5..16).unwrap_or(&time);
            let mark = if line.outcome == 0 { "" } else { " x" };
            format!("{time} {:<10} {amount:>13}{mark}", kind_for_people(line))
        } else {
            let time = time.get(..16).unwrap_or(&time);
            format!(
                "{time}  {:<10} {amount:>14} {after:>14}  {}{declined}",
                kind_for_people(line),
                other_side(line)
            )
        };
        say(text.trim_end());
    }
    if columns < 76 && lines.iter().any(|line| line.outcome != 0) {
        say("(x: declined)");
    }
    say(&format!("Balance {} {currency}", currency.format(balance)));
}
