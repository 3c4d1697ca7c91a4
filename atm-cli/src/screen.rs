//! What a terminal says: plain lines within the screen's width.

use std::io::{self, Write};

use bank_core::limits::{NARROWEST_SCREEN, WIDEST_SCREEN};
use bank_core::{Currency, Moment, Money, TerminalId};

use crate::layout::{PAPER, edges, rule};
use crate::paper::{BANK, sum};
use crate::words::plain;

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

/// The screen's width; of what is no screen, what `COLUMNS` says, or else as much as anybody wants.
pub(crate) fn columns() -> usize {
    let screen = terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
    let said = || std::env::var("COLUMNS").ok()?.parse().ok();
    screen.or_else(said).unwrap_or(200).max(NARROWEST_SCREEN)
}

/// How wide headings and tables are: on a wide screen, not so wide that eyes lose the line.
pub(crate) fn width() -> usize {
    columns().min(WIDEST_SCREEN)
}

/// What stands above a screen: the bank, the terminal and the time.
pub(crate) fn say_heading(terminal: TerminalId) {
    let width = width();
    let now = Moment::now().time.to_string();
    let (date, clock) = (now.get(..10).unwrap_or(&now), now.get(11..16).unwrap_or_default());
    let lines = [
        rule("=", width),
        edges(BANK, &format!("Terminal {terminal}"), width),
        edges(date, &format!("{clock} UTC"), width),
        rule("=", width),
    ];
    say(&lines.join("\n"));
}

/// The heading of some lines of names and sums.
pub(crate) fn say_title(title: &str) {
    say(&format!("\n{title}\n{}", rule("-", PAPER)));
}

/// Says what went wrong.
pub(crate) fn say_sorry(error: &dyn std::error::Error) {
    let text = plain(&error.to_string());
    let end = if text.ends_with('.') { "" } else { "." };
    say(&format!("\nSorry: {text}{end}"));
}

/// Shows what the bank's operators have had said.
pub(crate) fn say_notices(notices: &[String]) {
    for notice in notices {
        say(&format!("\nNOTICE FROM THE BANK: {notice}"));
    }
}

/// Says a name and what belongs to it, as wide as a receipt.
pub(crate) fn say_line(name: &str, value: &str) {
    say(&edges(name, value, PAPER));
}

/// Says a name and a sum, which stands under the others.
pub(crate) fn say_sum(name: &str, currency: Currency, money: Money) {
    say_line(name, &sum(currency, money));
}
