//! Customers of the client library: they ask over a cable that breaks, ask again, ask twice at once, and keep everything
//! that they were told.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use atm_cli::client::{Client, ClientConfig, ClientError};
use atm_cli::connection::{Connection, ConnectionError, Fate, Outcome, StatementLine};
use bank_core::{AccountId, Amount, Lsn, TerminalId, TxnId};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{ACCOUNTS, pin_of};

/// What was asked for, in minor units.
#[derive(Clone, Copy, Debug)]
pub(super) enum Want {
    Deposit(i64),
    Withdraw(i64),
    Transfer(i64, u64),
}

/// What somebody was told of it.
#[derive(Clone, Debug)]
pub(super) enum Told {
    /// To the request itself.
    Outcome(Outcome),
    /// By resolving or reversing.
    Fate(Fate),
    /// That it is certain not to have been done.
    NotDone,
    /// That it was done and undone.
    Undone,
    /// That it is not known.
    InDoubt,
}

/// One transaction, and all that was told of it to whoever asked.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) account: AccountId,
    pub(super) id: TxnId,
    pub(super) terminal: TerminalId,
    pub(super) want: Want,
    pub(super) told: Vec<Told>,
    /// Whether anybody asked for its reversal.
    pub(super) reversed: bool,
}

/// An account's newest rows, as the bank gave them.
#[derive(Clone, Debug)]
pub(super) struct Statement {
    pub(super) account: AccountId,
    pub(super) newest: Lsn,
    pub(super) lines: Vec<StatementLine>,
}

/// How many lines a statement has at most.
pub(super) const STATEMENT_LINES: u16 = 100;

/// A customer at a terminal without notes.
pub(super) struct Wire {
    pub(super) asked: Vec<Asked>,
    /// Requests that were made again, and those made twice at once.
    pub(super) repeats: u64,
    /// Transactions that were in doubt and were settled.
    pub(super) settled: u64,
    client: Client,
    retries: Rc<Cell<u64>>,
    terminal: TerminalId,
    random: StdRng,
    server: String,
}

impl Wire {
    /// A client with so little patience that it is often left in doubt.
    pub(super) fn new(server: &str, number: usize, seed: u64, patience: Duration) -> Wire {
        let terminal: TerminalId = format!("WIRE-{number}").parse().expect("a terminal id");
        let mut client = Client::new(ClientConfig {
            deadline: patience,
            attempt_deadline: patience / 2,
            ..ClientConfig::new(server, terminal)
        });
        let retries = Rc::new(Cell::new(0));
        let count = Rc::clone(&retries);
        client.on_retry(move |_, _| count.set(count.get() + 1));
        Wire {
            asked: Vec::new(),
            repeats: 0,
            settled: 0,
            client,
            retries,
            terminal,
            random: StdRng::seed_from_u64(seed),
            server: server.to_owned(),
        }
    }

    /// Asks for one thing after the other until told to stop.
    pub(super) fn ask_until(&mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Acquire) {
            self.ask_once();
        }
        self.repeats += self.retries.take();
    }

    fn ask_once(&mut self) {
        if self.client.customer().is_none() || self.random.random_bool(0.02) {
            let account = self.random.random_range(1..=ACCOUNTS);
            let card = account.to_string().parse().expect("a card number");
            if self.client.login(&card, &pin_of(account)).is_err() {
                return;
            }
        }
        let Some(account) = self.client.customer().map(|customer| customer.account) else {
            return;
        };
        let minor = self.random.random_range(1..20_000);
        let want = match self.random.random_range(0..3) {
            0 => Want::Deposit(minor),
            1 => Want::Withdraw(minor),
            _ => Want::Transfer(minor, self.random.random_range(1..=ACCOUNTS)),
        };
        let id = self.client.new_txn_id();
        let twice = self
            .random
            .random_bool(0.1)
            .then(|| self.ask_elsewhere(account, id, want));
        let answer = ask(&mut self.client, id, want);
        // Asked for once, what did not reach the bank is certain not to be done.
        let never_reached = twice.is_none()
            && matches!(&answer, Err(ClientError::Connection(error)) if !error.leaves_doubt());
        let mut told = if never_reached {
            vec![Told::NotDone]
        } else {
            vec![told(answer)]
        };
        let mut reversed = false;
        // As a customer who presses the button again.
        if !never_reached && self.random.random_bool(0.1) {
            self.repeats += 1;
            told.push(self::told(ask(&mut self.client, id, want)));
        }
        if self.random.random_bool(0.1) {
            let (fate, reverse) = self.settle(account, id);
            reversed = reverse;
            told.push(fate);
        }
        if let Some(twice) = twice {
            told.extend(twice.join().expect("asking does not panic"));
        }
        self.asked.push(Asked {
            account,
            id,
            terminal: self.terminal,
            want,
            told,
            reversed,
        });
    }

    /// Asks for the same on a connection of its own, at the same time.
    fn ask_elsewhere(&mut self, account: AccountId, id: TxnId, want: Want) -> thread::JoinHandle<Vec<Told>> {
        self.repeats += 1;
        let (server, terminal) = (self.server.clone(), self.terminal);
        thread::spawn(move || {
            let Ok(mut connection) = Connection::connect(&server, terminal) else {
                return Vec::new();
            };
            let card = account.to_string().parse().expect("a card number");
            if connection.login(&card, &pin_of(account.get())).is_err() {
                return Vec::new();
            }
            let outcome = match want {
                Want::Deposit(minor) => connection.deposit(id, amount(minor)),
                Want::Withdraw(minor) => connection.withdraw(id, amount(minor)),
                Want::Transfer(minor, to) => connection.transfer(id, payee(to), amount(minor)),
            };
            // What another connection was told in error says nothing of the transaction.
            outcome.map(Told::Outcome).into_iter().collect()
        })
    }

    /// Resolves or reverses. Gives what was told, and whether it was to be reversed.
    fn settle(&mut self, account: AccountId, id: TxnId) -> (Told, bool) {
        let reverse = self.random.random();
        let fate = if reverse {
            self.client.reverse(account, id)
        } else {
            self.client.resolve(account, id)
        };
        (fate.map_or(Told::InDoubt, Told::Fate), reverse)
    }

    /// With the bank back for good, ends all doubt: by asking again, by resolving, or by reversing.
    pub(super) fn end_doubt(&mut self) {
        let doubtful = |asked: &Asked| asked.told.iter().all(|told| matches!(told, Told::InDoubt));
        for n in 0..self.asked.len() {
            if !doubtful(&self.asked[n]) {
                continue;
            }
            let Asked {
                account, id, want, ..
            } = self.asked[n];
            let told = if self.random.random_bool(0.3) {
                let card = account.to_string().parse().expect("a card number");
                match self.client.login(&card, &pin_of(account.get())) {
                    Ok(_) => told(ask(&mut self.client, id, want)),
                    Err(_) => Told::InDoubt,
                }
            } else {
                let (told, reversed) = self.settle(account, id);
                self.asked[n].reversed |= reversed;
                told
            };
            self.settled += 1;
            self.asked[n].told.push(told);
        }
    }

    /// Each account's statement.
    pub(super) fn statements(&mut self) -> Vec<Statement> {
        let mut statements = Vec::new();
        for account in 1..=ACCOUNTS {
            let card = account.to_string().parse().expect("a card number");
            let customer = self.client.login(&card, &pin_of(account));
            let found = self.client.statement(STATEMENT_LINES);
            if let (Ok(customer), Ok((balance, lines))) = (customer, found) {
                statements.push(Statement {
                    account: customer.account,
                    newest: balance.lsn,
                    lines,
                });
            }
        }
        statements
    }
}

fn ask(client: &mut Client, id: TxnId, want: Want) -> Result<Outcome, ClientError> {
    match want {
        Want::Deposit(minor) => client.deposit(id, amount(minor)),
        Want::Withdraw(minor) => client.withdraw(id, amount(minor)),
        Want::Transfer(minor, to) => client.transfer(id, payee(to), amount(minor)),
    }
}

fn told(outcome: Result<Outcome, ClientError>) -> Told {
    match outcome {
        Ok(outcome) => Told::Outcome(outcome),
        // Nobody is logged in: that says nothing of what was asked for before under the same id.
        Err(ClientError::InDoubt { .. } | ClientError::NobodyLoggedIn) => Told::InDoubt,
        Err(ClientError::Connection(ConnectionError::StaleId { .. })) => Told::NotDone,
        // This request did nothing, but the one before under its id may have, and a twin may be under way.
        Err(ClientError::Connection(_)) => Told::InDoubt,
        Err(ClientError::GivenUp { .. }) => Told::NotDone,
        Err(ClientError::Undone { .. }) => Told::Undone,
        Err(ClientError::PinInDoubt { .. }) => unreachable!("no PIN is changed"),
    }
}

fn amount(minor: i64) -> Amount {
    Amount::from_minor(minor).expect("more than nothing")
}

fn payee(number: u64) -> AccountId {
    AccountId::new(number).expect("an account number")
}
