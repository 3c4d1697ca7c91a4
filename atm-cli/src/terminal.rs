//! The terminal that a customer stands before: card and PIN, then a menu.

use std::io::{self, Write};
use std::time::Duration;

use bank_core::limits::{MINI_STATEMENT_LINES, RECONNECT_BACKOFF};
use bank_core::protocol::{ErrorCode, Receipt};
use bank_core::{Amount, CardNumber, Currency, Lsn, Money, Pin, TerminalId, Timestamp, TxnId};

use crate::client::{Client, ClientError, Customer, Outcome, StatementLine};
use crate::one_shot::Ended;
use crate::prompt::{NoAnswer, Prompt};
use crate::words::{kind, other_side, plain};

/// Serves customers one after the other until the input ends or somebody quits.
pub fn run(server: &str, terminal: TerminalId, prompt: &mut dyn Prompt) -> Ended {
    let mut terminal = Terminal {
        server,
        id: terminal,
        prompt,
    };
    let _ = terminal.serve_customers();
    Ended::Approved
}

struct Terminal<'a> {
    server: &'a str,
    id: TerminalId,
    prompt: &'a mut dyn Prompt,
}

/// Why a customer's session ends.
enum Leave {
    /// The customer is done; the next one may come.
    LoggedOut,
    /// The terminal is to stop.
    Quit,
}

impl From<NoAnswer> for Leave {
    fn from(_: NoAnswer) -> Leave {
        Leave::Quit
    }
}

/// What the menu offers, in its order.
const MENU: [(&str, Action); 8] = [
    ("View your balance", Action::Balance),
    ("Make a deposit", Action::Deposit),
    ("Make a withdrawal", Action::Withdraw),
    ("Transfer to another account", Action::Transfer),
    ("Mini-statement", Action::Statement),
    ("Change your PIN", Action::ChangePin),
    ("Log out", Action::LogOut),
    ("Quit", Action::Quit),
];

#[derive(Clone, Copy)]
enum Action {
    Balance,
    Deposit,
    Withdraw,
    Transfer,
    Statement,
    ChangePin,
    LogOut,
    Quit,
}

impl Terminal<'_> {
    fn serve_customers(&mut self) -> Result<(), NoAnswer> {
        say("Welcome to the bank!");
        let mut client = self.connect()?;
        loop {
            let (card, pin) = loop {
                let Some(card) = self.ask_card()? else {
                    return Ok(());
                };
                match self.prompt.secret("PIN:") {
                    Ok(pin) => break (card, pin),
                    Err(NoAnswer::Back) => {}
                    Err(NoAnswer::Quit) => return Err(NoAnswer::Quit),
                }
            };
            if let Err(error) = Pin::new(pin.as_bytes()) {
                say(&format!("Sorry, {error}."));
                continue;
            }
            let mut customer = client.login(&card, &pin);
            // An idle connection is closed by the bank after some minutes, which a customer need not know. Only
            // then is a login asked for again: after any other break the try may have been counted.
            let closed = customer.as_ref().err().and_then(ClientError::code);
            if matches!(closed, Some(ErrorCode::TimedOut | ErrorCode::ShuttingDown)) {
                client = self.connect()?;
                customer = client.login(&card, &pin);
            }
            drop(pin);
            match customer {
                Ok(customer) => {
                    say(&format!("\nGood day, {}!", plain(&customer.holder)));
                    if let Leave::Quit = self.serve_customer(&mut client, &customer) {
                        let _ = client.logout();
                        say("Goodbye!");
                        return Ok(());
                    }
                    say("Goodbye!\n");
                }
                Err(error) => {
                    say_error(&error);
                    if ends_connection(&error) {
                        client = self.connect()?;
                    }
                }
            }
        }
    }

    /// The card, or `None` to quit.
    fn ask_card(&mut self) -> Result<Option<CardNumber>, NoAnswer> {
        loop {
            match self.prompt.line("Card (or q to quit):") {
                Ok(text) if matches!(text.trim(), "q" | "Q") => return Ok(None),
                Ok(text) => match CardNumber::new(text.trim()) {
                    Ok(card) => return Ok(Some(card)),
                    Err(error) => say(&format!("Sorry, {error}.")),
                },
                Err(NoAnswer::Back) => {}
                Err(NoAnswer::Quit) => return Err(NoAnswer::Quit),
            }
        }
    }

    /// Connects, however long it takes; gives up only if the bank will never talk to this terminal.
    fn connect(&mut self) -> Result<Client, NoAnswer> {
        let (mut pause, longest) = RECONNECT_BACKOFF;
        loop {
            match Client::connect(self.server, self.id) {
                Ok(client) => return Ok(client),
                Err(error) if is_final(&error) => {
                    say_error(&error);
                    return Err(NoAnswer::Quit);
                }
                Err(error) => {
                    let seconds = pause.as_secs_f32();
                    say(&format!(
                        "{}.\nTrying again in {seconds} s (Ctrl-C to quit) ...",
                        plain(&error.to_string())
                    ));
                    wait(pause);
                    pause = (pause * 2).min(longest);
                }
            }
        }
    }

    fn serve_customer(&mut self, client: &mut Client, customer: &Customer) -> Leave {
        loop {
            match self.serve_once(client, customer) {
                Ok(()) => {}
                Err(leave) => return leave,
            }
        }
    }

    fn serve_once(&mut self, client: &mut Client, customer: &Customer) -> Result<(), Leave> {
        let options = MENU.map(|(name, _)| name);
        let chosen = match self.prompt.choose("Menu:", &options) {
            Err(NoAnswer::Back) => return Ok(()),
            other => other?,
        };
        let done = match MENU[chosen].1 {
            Action::Balance => client.balance().map(|found| {
                say(&format!(
                    "\nYour balance is {} {}.",
                    found.currency.format(found.balance),
                    found.currency
                ));
            }),
            Action::Deposit => self.transact(customer, "Deposit", |id, amount| client.deposit(id, amount))?,
            Action::Withdraw => {
                self.transact(customer, "Withdrawal", |id, amount| client.withdraw(id, amount))?
            }
            Action::Transfer => {
                let Some(to) = self.ask_payee()? else {
                    return Ok(());
                };
                self.transact(customer, "Transfer", |id, amount| client.transfer(id, to, amount))?
            }
            Action::Statement => client.statement(MINI_STATEMENT_LINES).map(|(balance, lines)| {
                say_statement(balance.currency, balance.balance, &lines);
            }),
            Action::ChangePin => self.change_pin(client)?,
            Action::LogOut => {
                // Whether the bank hears it or not, the customer is gone: the connection's end logs out as well.
                if client.logout().is_err() {
                    *client = self.connect()?;
                }
                return Err(Leave::LoggedOut);
            }
            Action::Quit => return Err(Leave::Quit),
        };
        let Err(error) = done else { return Ok(()) };
        say_error(&error);
        if ends_connection(&error) {
            *client = self.connect()?;
            say("The bank can be reached again. Please log in.");
            return Err(Leave::LoggedOut);
        }
        if error.code() == Some(ErrorCode::SessionEnded) {
            return Err(Leave::LoggedOut);
        }
        Ok(())
    }

    /// The account to pay; `None` if the customer thought better of it.
    fn ask_payee(&mut self) -> Result<Option<bank_core::AccountId>, NoAnswer> {
        loop {
            match self.prompt.line("Account to pay:") {
                Ok(text) => match text.trim().parse() {
                    Ok(account) => return Ok(Some(account)),
                    Err(error) => say(&format!("Sorry, {error}.")),
                },
                Err(NoAnswer::Back) => return Ok(None),
                Err(NoAnswer::Quit) => return Err(NoAnswer::Quit),
            }
        }
    }

    /// Asks for an amount and does something with it. The outer error is the customer's wish to stop.
    fn transact(
        &mut self,
        customer: &Customer,
        name: &str,
        ask: impl FnOnce(TxnId, Amount) -> Result<Outcome, ClientError>,
    ) -> Result<Result<(), ClientError>, Leave> {
        let amount = loop {
            match self.prompt.line(&format!("Amount in {}:", customer.currency)) {
                Ok(text) => match customer.currency.parse_amount(text.trim()) {
                    Ok(amount) => break amount,
                    Err(error) => say(&format!("Sorry, {error}.")),
                },
                Err(NoAnswer::Back) => return Ok(Ok(())),
                Err(NoAnswer::Quit) => return Err(Leave::Quit),
            }
        };
        let id = TxnId::generate();
        match ask(id, amount) {
            Ok(outcome) => say_receipt(customer.currency, name, id, &outcome),
            Err(error) => {
                if error.leaves_doubt() {
                    say(&format!(
                        "\nIT IS NOT KNOWN WHETHER THIS WAS DONE.\nLook at your statement before you repeat it:\n  {id}"
                    ));
                }
                return Ok(Err(error));
            }
        }
        Ok(Ok(()))
    }

    fn change_pin(&mut self, client: &mut Client) -> Result<Result<(), ClientError>, Leave> {
        let mut ask = |question| match self.prompt.secret(question) {
            Ok(pin) => Ok(Some(pin)),
            Err(NoAnswer::Back) => Ok(None),
            Err(NoAnswer::Quit) => Err(Leave::Quit),
        };
        let Some(old) = ask("PIN so far:")? else {
            return Ok(Ok(()));
        };
        let Some(new) = ask("New PIN:")? else {
            return Ok(Ok(()));
        };
        if let Err(error) = Pin::new(new.as_bytes()) {
            say(&format!("Sorry, {error}. Your PIN was not changed."));
            return Ok(Ok(()));
        }
        let Some(again) = ask("New PIN again:")? else {
            return Ok(Ok(()));
        };
        if *new != *again {
            say("The two new PINs differ. Your PIN was not changed.");
            return Ok(Ok(()));
        }
        Ok(client
            .change_pin(&old, &new)
            .map(|()| say("\nYour PIN has been changed.")))
    }
}

/// Whether trying again cannot help.
fn is_final(error: &ClientError) -> bool {
    matches!(
        error.code(),
        Some(ErrorCode::UnsupportedVersion | ErrorCode::TerminalRefused)
    )
}

/// Whether the connection is of no use any more.
fn ends_connection(error: &ClientError) -> bool {
    error.leaves_doubt()
        || matches!(
            error.code(),
            Some(
                ErrorCode::ShuttingDown
                    | ErrorCode::TimedOut
                    | ErrorCode::TooManyConnections
                    | ErrorCode::MalformedFrame
                    | ErrorCode::FrameTooLong
            )
        )
}

/// Writes to the customer, within the screen's width. That nobody reads any more will be noticed at the next
/// question.
fn say(text: &str) {
    let _ = writeln!(io::stdout(), "{}", textwrap::fill(text, columns()));
}

/// The screen's width; of what is no screen, as much as anybody wants.
fn columns() -> usize {
    terminal_size::terminal_size().map_or(200, |(width, _)| usize::from(width.0))
}

fn say_error(error: &ClientError) {
    let text = plain(&error.to_string());
    let end = if text.ends_with('.') { "" } else { "." };
    say(&format!("\nSorry: {text}{end}"));
}

/// Waits before the next attempt to connect: here the clock is all there is to wait for.
#[allow(clippy::disallowed_methods)]
fn wait(pause: Duration) {
    std::thread::sleep(pause);
}

/// A receipt of at most 40 columns.
fn say_receipt(currency: Currency, name: &str, id: TxnId, outcome: &Outcome) {
    let (heading, reason, lsn, receipt): (_, _, &Lsn, &Receipt) = match outcome {
        Outcome::Approved(lsn, receipt) => ("APPROVED", None, lsn, receipt),
        Outcome::Declined {
            lsn,
            receipt,
            message,
            ..
        } => ("DECLINED", Some(plain(message)), lsn, receipt),
    };
    let sum = |minor| format!("{} {currency}", currency.format(Money::from_minor(minor)));
    say(&format!("\n  {heading}"));
    if let Some(reason) = reason {
        say(&format!("  {reason}"));
    }
    say(&format!("  {name:<12}{:>24}", sum(receipt.amount)));
    say(&format!("  {:<12}{:>24}", "Balance", sum(receipt.balance)));
    say(&format!(
        "  {} UTC  row {lsn}",
        Timestamp::from_millis(receipt.time)
    ));
    say(&format!("  {id}"));
}

/// The newest lines last, as on paper; as wide as the screen allows.
fn say_statement(currency: Currency, balance: Money, lines: &[StatementLine]) {
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
            format!("{time} {:<10} {amount:>13}{mark}", kind(line))
        } else {
            let time = time.get(..16).unwrap_or(&time);
            format!(
                "{time}  {:<10} {amount:>14} {after:>14}  {}{declined}",
                kind(line),
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
