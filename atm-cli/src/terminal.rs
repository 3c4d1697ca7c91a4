//! The terminal that a customer stands before: card and PIN, then a menu.

use std::fs;
use std::io;
use std::path::PathBuf;

use bank_core::limits::MINI_STATEMENT_LINES;
use bank_core::protocol::ErrorCode;
use bank_core::{AccountId, Amount, CardNumber, Currency, Moment, Money, Pin};

use crate::client::{Client, ClientConfig, ClientError};
use crate::connection::{Balance, ConnectionError, Customer};
use crate::dispenser::{Cassettes, Unpayable};
use crate::electronic_journal::{ElectronicJournal, ElectronicJournalError};
use crate::machine::{Done, Machine, MachineError, Tray};
use crate::one_shot::Ended;
use crate::paper::{self, Slip, sum};
use crate::prompt::{NoAnswer, Prompt};
use crate::screen::{say, say_heading, say_notices, say_sorry, width};
use crate::supervisor::{self, SupervisorCode, SupervisorCodeError, say_settled};
use crate::words::plain;

/// A terminal and where its things are.
#[derive(Clone, Debug)]
pub struct TerminalConfig {
    /// The way to the bank.
    pub client: ClientConfig,
    /// The electronic journal.
    pub journal: PathBuf,
    /// What is in the cassettes of a new machine, whose journal is to be begun if there is none.
    pub cassettes: Option<Cassettes>,
    /// Where each note that is paid out is written down, if anywhere.
    pub tray: Option<PathBuf>,
    /// The supervisor's code. It is made if there is none.
    pub supervisor_code: PathBuf,
    /// What stands beside the machine for everybody to read, if anything does.
    pub posted: Option<String>,
}

/// Why a terminal does not start.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Journal(#[from] ElectronicJournalError),
    #[error(transparent)]
    Code(#[from] SupervisorCodeError),
    #[error(
        "{} is the journal of a machine with {currency} {known}: leave --cassettes and --currency out, they are for a new one",
        path.display()
    )]
    OtherCassettes {
        path: PathBuf,
        known: String,
        currency: Currency,
    },
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// Serves customers one after the other until the input ends or somebody quits.
pub fn run(config: TerminalConfig, prompt: &mut dyn Prompt) -> Ended {
    let posted = config.posted.clone();
    let (machine, code, is_new) = match start(config) {
        Ok(started) => started,
        Err(error) => {
            eprintln!("atm-cli: {error}");
            return Ended::Failed;
        }
    };
    let mut terminal = Terminal {
        machine,
        code,
        posted,
        prompt,
    };
    match terminal.serve_customers(is_new) {
        Ok(()) | Err(Stop::Quit) => Ended::Approved,
        Err(Stop::TurnedAway) => Ended::Failed,
        Err(Stop::OutOfService(error)) => {
            say("\nOUT OF SERVICE. What was begun here is put right later. Please use another machine.");
            eprintln!("atm-cli: {error}");
            Ended::Failed
        }
    }
}

/// Gives also whether the machine is a new one.
fn start(config: TerminalConfig) -> Result<(Machine, SupervisorCode, bool), StartError> {
    let TerminalConfig {
        mut client,
        journal,
        cassettes,
        tray,
        supervisor_code,
        posted: _,
    } = config;
    let io = |path: PathBuf| move |source| StartError::Io { path, source };
    if let Some(directory) = journal.parent().filter(|path| !path.as_os_str().is_empty()) {
        fs::create_dir_all(directory).map_err(io(directory.to_owned()))?;
    }
    let now = Moment::now().time;
    let path = journal;
    let is_new = !path.exists();
    let (journal, torn) = ElectronicJournal::open(&path, client.terminal, cassettes.as_ref(), now)?;
    if is_new {
        say(&format!("A new machine: its journal is {}.", path.display()));
    } else if let Some(given) = cassettes
        && !given.has_denominations_of(journal.state().cassettes())
    {
        let known = journal.state().cassettes();
        return Err(StartError::OtherCassettes {
            known: known.to_string(),
            currency: known.currency(),
            path,
        });
    }
    if let Some(torn) = torn {
        say(&format!("The terminal's journal: {torn}."));
    }
    let (code, made) = SupervisorCode::read_or_create(&supervisor_code)?;
    if made {
        say(&format!(
            "The supervisor's code is in {}.",
            supervisor_code.display()
        ));
    }
    let tray = Tray::new(tray.as_deref()).map_err(io(tray.unwrap_or_default()))?;
    client.last_txn_id = journal.state().last_id();
    let mut client = Client::new(client);
    client.on_retry(|error, first| {
        // That a connection was closed meanwhile, or that the bank is busy, a customer need not know, nor how often it was
        // tried.
        if let ConnectionError::Unreachable { .. } = error
            && first
        {
            let error = plain(&error.to_string());
            say(&format!("{error}.\nTrying again for a while ..."));
        }
    });
    Ok((Machine::new(journal, tray, client), code, is_new))
}

struct Terminal<'a> {
    machine: Machine,
    code: SupervisorCode,
    posted: Option<String>,
    prompt: &'a mut dyn Prompt,
}

/// Why the terminal stops.
enum Stop {
    /// Somebody wants it to, or there is no more input.
    Quit,
    /// The bank will never talk to it.
    TurnedAway,
    /// Its journal cannot be written, so it may do nothing more.
    OutOfService(ElectronicJournalError),
}

impl From<ElectronicJournalError> for Stop {
    fn from(error: ElectronicJournalError) -> Stop {
        Stop::OutOfService(error)
    }
}

/// What the customer wants next.
enum Next {
    More,
    Left(Left),
}

/// Why a customer is logged out.
enum Left {
    /// The customer said so.
    Said,
    /// The session is over.
    Ended,
}

/// A customer with a card.
struct Visit {
    card: CardNumber,
    customer: Customer,
}

/// Something other than what was asked for.
enum Otherwise {
    /// Esc: the customer thought better of it.
    Back,
    Stop(Stop),
}

impl From<NoAnswer> for Otherwise {
    fn from(answer: NoAnswer) -> Otherwise {
        match answer {
            NoAnswer::Back => Otherwise::Back,
            NoAnswer::Quit => Otherwise::Stop(Stop::Quit),
        }
    }
}

impl From<Stop> for Otherwise {
    fn from(stop: Stop) -> Otherwise {
        Otherwise::Stop(stop)
    }
}

/// Who stands there.
enum Visitor {
    Customer(CardNumber),
    Supervisor,
}

/// What the menu offers, in its order.
const MENU: [(&str, Action); 8] = [
    ("Balance", Action::Balance),
    ("Deposit", Action::Deposit),
    ("Withdrawal", Action::Withdraw),
    ("Transfer", Action::Transfer),
    ("Mini-statement", Action::Statement),
    ("Change of PIN", Action::ChangePin),
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
    fn serve_customers(&mut self, is_new: bool) -> Result<(), Stop> {
        self.say_welcome();
        // A bank that is away is tried for a while, so that the first customer need not; then the card is asked for
        // all the same, since there is a supervisor, too.
        if let Err(error) = self.machine.client.ping() {
            self.say_failure(&error)?;
        } else if is_new && self.machine.host_total().is_ok_and(|total| total != Money::ZERO) {
            say(
                "THE BANK KNOWS THIS TERMINAL, AND ITS JOURNAL IS NEW: what was unfinished here is not known. \
                 Look for the old journal before you go on.",
            );
        }
        if !self.machine.for_supervisor().is_empty() {
            say("This machine waits for its supervisor: see unfinished transactions.");
        }
        loop {
            self.settle()?;
            let card = match self.ask_visitor() {
                Ok(Some(Visitor::Customer(card))) => card,
                Ok(Some(Visitor::Supervisor)) => {
                    let served = supervisor::serve(&mut self.machine, &mut self.code, self.prompt)?;
                    if served.map_err(|_| Stop::Quit)? {
                        self.prompt.clear();
                        self.say_welcome();
                    }
                    continue;
                }
                Ok(None) => return Ok(()),
                Err(_) => return Err(Stop::Quit),
            };
            // The bank may be back only now.
            self.settle()?;
            // Asked again at once, lest it should be typed where it can be read.
            let pin = loop {
                match self.prompt.secret("PIN:") {
                    Ok(pin) => match Pin::new(pin.as_bytes()) {
                        Ok(_) => break Some(pin),
                        Err(error) => say_sorry(&error),
                    },
                    Err(NoAnswer::Back) => break None,
                    Err(NoAnswer::Quit) => return Err(Stop::Quit),
                }
            };
            let Some(pin) = pin else {
                continue;
            };
            let customer = self.machine.client.login(&card, &pin);
            drop(pin);
            match customer {
                Ok(customer) => {
                    self.prompt.clear();
                    say_heading(self.machine.state().terminal());
                    say(&format!("Good day, {}!", plain(&customer.holder)));
                    let end = self.serve_customer(&Visit { card, customer });
                    self.machine.client.logout();
                    match end {
                        Ok(Left::Said) => {
                            self.prompt.clear();
                            say("Goodbye!\n");
                            self.say_welcome();
                        }
                        // What was said last is still to be read.
                        Ok(Left::Ended) => say("Goodbye!\n"),
                        Err(stop) => {
                            say("Goodbye!\n");
                            return Err(stop);
                        }
                    }
                }
                Err(error) => self.say_failure(&error)?,
            }
        }
    }

    /// Brings to an end what is unfinished, if the bank is there for it.
    fn settle(&mut self) -> Result<(), Stop> {
        let waiting = self.machine.state().open().len() > self.machine.for_supervisor().len();
        if !waiting || self.machine.client.connect().is_err() {
            return Ok(());
        }
        match self.machine.settle(say_settled) {
            Ok(()) => Ok(()),
            Err(MachineError::Journal(error)) => Err(error.into()),
            Err(error) => {
                say_sorry(&error);
                Ok(())
            }
        }
    }

    /// Whoever comes, or `None` to quit.
    fn ask_visitor(&mut self) -> Result<Option<Visitor>, NoAnswer> {
        loop {
            say("\nYour card? (*: supervisor, q: quit)");
            let Terminal { machine, prompt, .. } = self;
            match prompt.wait_for_line("Card:", &mut || machine.client.listen()) {
                Ok(text) if matches!(text.trim(), "q" | "Q") => return Ok(None),
                Ok(text) if text.trim() == "*" => return Ok(Some(Visitor::Supervisor)),
                Ok(text) => match CardNumber::new(text.trim()) {
                    Ok(card) => return Ok(Some(Visitor::Customer(card))),
                    Err(error) => say_sorry(&error),
                },
                Err(NoAnswer::Back) => {}
                Err(NoAnswer::Quit) => return Err(NoAnswer::Quit),
            }
        }
    }

    /// What everybody sees first.
    fn say_welcome(&self) {
        say_heading(self.machine.state().terminal());
        if let Some(posted) = &self.posted {
            say(posted);
        }
        say("Welcome to the bank!");
    }

    fn serve_customer(&mut self, visit: &Visit) -> Result<Left, Stop> {
        loop {
            match self.serve_once(visit) {
                Ok(Next::More) | Err(Otherwise::Back) => {}
                Ok(Next::Left(left)) => return Ok(left),
                Err(Otherwise::Stop(stop)) => return Err(stop),
            }
        }
    }

    fn serve_once(&mut self, visit: &Visit) -> Result<Next, Otherwise> {
        say_notices(&self.machine.client.listen());
        let options = MENU.map(|(name, _)| name);
        let chosen = self.prompt.choose("Menu:", &options)?;
        let done = match MENU[chosen].1 {
            Action::Balance => self.machine.client.balance().map(|found| {
                say(&format!(
                    "\nYour balance is {}.",
                    sum(found.currency, found.balance)
                ));
            }),
            Action::Statement => {
                self.machine
                    .client
                    .statement(MINI_STATEMENT_LINES)
                    .map(|(balance, lines)| {
                        let account = visit.customer.account;
                        let Balance {
                            balance, currency, ..
                        } = balance;
                        let text = paper::statement(account, currency, balance, &lines, width());
                        say(&format!("\n{text}"));
                    })
            }
            Action::ChangePin => self.change_pin()?,
            Action::Deposit => return self.deposit(visit),
            Action::Withdraw => return self.withdraw(visit),
            Action::Transfer => return self.transfer(visit),
            Action::LogOut => return Ok(Next::Left(Left::Said)),
            Action::Quit => return Err(Stop::Quit.into()),
        };
        match done {
            Ok(()) => Ok(Next::More),
            Err(error) => self.after_failure(&error),
        }
    }

    fn deposit(&mut self, visit: &Visit) -> Result<Next, Otherwise> {
        let customer = &visit.customer;
        if let Err(error) = self.machine.check_currency(customer) {
            return self.after_machine_failure(error);
        }
        let amount = self.ask_amount(customer.currency)?;
        match self.machine.deposit(customer, amount) {
            Ok(done) => self.say_done(visit, "Deposit", None, &done),
            Err(MachineError::Client(error)) => {
                say(&format!(
                    "\nYOUR MONEY IS KEPT: {} is credited when the bank can be reached again.",
                    sum(customer.currency, amount.money())
                ));
                self.after_failure(&error)
            }
            Err(error) => self.after_machine_failure(error),
        }
    }

    fn withdraw(&mut self, visit: &Visit) -> Result<Next, Otherwise> {
        let customer = &visit.customer;
        if let Err(error) = self.machine.check_currency(customer) {
            return self.after_machine_failure(error);
        }
        let amount = self.ask_amount(customer.currency)?;
        match self.machine.withdraw(customer, amount) {
            Ok(done) => self.say_done(visit, "Withdrawal", None, &done),
            Err(MachineError::Unpayable(nearest)) => {
                say_unpayable(customer.currency, nearest);
                Ok(Next::More)
            }
            Err(MachineError::Client(error)) => {
                say("\nNO MONEY IS PAID OUT. If your account was debited, that is undone.");
                self.after_failure(&error)
            }
            Err(error) => self.after_machine_failure(error),
        }
    }

    fn transfer(&mut self, visit: &Visit) -> Result<Next, Otherwise> {
        let customer = &visit.customer;
        let to = self.ask_payee()?;
        let amount = self.ask_amount(customer.currency)?;
        match self.machine.transfer(customer, to, amount) {
            Ok(done) => self.say_done(visit, "Transfer", Some(to), &done),
            Err(MachineError::Client(error)) => {
                say(
                    "\nThis is not done yet, and perhaps will not be. Your statement will tell, in some minutes.",
                );
                self.after_failure(&error)
            }
            Err(error) => self.after_machine_failure(error),
        }
    }

    fn say_done(
        &self,
        visit: &Visit,
        what: &str,
        payee: Option<AccountId>,
        done: &Done,
    ) -> Result<Next, Otherwise> {
        let receipt = paper::receipt(&Slip {
            terminal: self.machine.state().terminal(),
            card: &visit.card,
            account: visit.customer.account,
            currency: visit.customer.currency,
            what,
            payee,
            id: done.id,
            outcome: &done.outcome,
        });
        say(&format!("\n{receipt}"));
        Ok(Next::More)
    }

    fn ask_amount(&mut self, currency: Currency) -> Result<Amount, NoAnswer> {
        loop {
            let text = self.prompt.line(&format!("Amount in {currency}:"))?;
            match currency.parse_amount(text.trim()) {
                Ok(amount) => return Ok(amount),
                Err(error) => say_sorry(&error),
            }
        }
    }

    fn ask_payee(&mut self) -> Result<AccountId, NoAnswer> {
        loop {
            match self.prompt.line("Account to pay:")?.trim().parse() {
                Ok(account) => return Ok(account),
                Err(error) => say(&format!("Sorry, {error}.")),
            }
        }
    }

    fn change_pin(&mut self) -> Result<Result<(), ClientError>, NoAnswer> {
        let old = self.prompt.secret("PIN so far:")?;
        let new = self.prompt.secret("New PIN:")?;
        // Whatever the new one is: whoever types on is not to type it where it can be read.
        let again = self.prompt.secret("New PIN again:")?;
        if let Err(error) = Pin::new(new.as_bytes()) {
            say(&format!("Sorry, {error}. Your PIN was not changed."));
            return Ok(Ok(()));
        }
        if *new != *again {
            say("The two new PINs differ. Your PIN was not changed.");
            return Ok(Ok(()));
        }
        Ok(self
            .machine
            .client
            .change_pin(&old, &new)
            .map(|()| say("\nYour PIN has been changed.")))
    }

    /// The customer goes on, unless the session is over.
    fn after_failure(&mut self, error: &ClientError) -> Result<Next, Otherwise> {
        self.say_failure(error)?;
        self.settle()?;
        Ok(if self.machine.client.customer().is_some() {
            Next::More
        } else {
            Next::Left(Left::Ended)
        })
    }

    fn after_machine_failure(&mut self, error: MachineError) -> Result<Next, Otherwise> {
        match error {
            MachineError::Journal(error) => Err(Stop::OutOfService(error).into()),
            error => {
                say_sorry(&error);
                Ok(Next::More)
            }
        }
    }

    fn say_failure(&self, error: &ClientError) -> Result<(), Stop> {
        match error {
            // What becomes of these has been said, and is said again when they are settled.
            ClientError::InDoubt { .. } | ClientError::GivenUp { .. } | ClientError::Undone { .. } => {
                say("\nSorry: the bank did not answer in time.");
            }
            // Which address that is, whoever looks after the terminal has read when it was tried.
            ClientError::Connection(ConnectionError::Unreachable { .. }) => {
                say("\nSorry: the bank cannot be reached at present. Please try again later.");
            }
            ClientError::NobodyLoggedIn => say("\nYou have been away too long. Please log in again."),
            error => say_sorry(error),
        }
        match error.code() {
            Some(ErrorCode::TerminalRefused) => {
                say(
                    "If the bank has given this terminal a secret or a certificate, name the files: --terminal-secret-file, \
                     --tls-cert and --tls-key.",
                );
                Err(Stop::TurnedAway)
            }
            Some(ErrorCode::UnsupportedVersion | ErrorCode::TlsRequired) => Err(Stop::TurnedAway),
            _ => Ok(()),
        }
    }
}

fn say_unpayable(currency: Currency, nearest: Unpayable) {
    let sums: Vec<_> = [nearest.below, nearest.above]
        .into_iter()
        .flatten()
        .map(Amount::money)
        .map(|money: Money| sum(currency, money))
        .collect();
    let advice = match &sums[..] {
        [] => "It has no notes left.".to_owned(),
        sums => format!("It can pay {}.", sums.join(" or ")),
    };
    say(&format!(
        "\nSorry: this machine cannot pay that sum with the notes it has. {advice}"
    ));
}
