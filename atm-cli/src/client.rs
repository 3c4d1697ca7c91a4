//! The client: what a terminal asks of the bank, over as many connections as it takes.
//!
//! A request has a deadline. Until then it is made again when the bank is away, hangs up or has too much to do: on a new
//! connection if need be, on which the customer is logged in again, and a transaction always under its own id, of which
//! the bank knows the outcome. What is still unknown at the deadline is said to be in doubt, with its id.
//!
//! Not everything is asked twice. A login that may have reached the bank is not repeated, lest a wrong PIN should count
//! twice, unless the bank has accepted that PIN before; and a change of PIN is not repeated at all. If the customer cannot
//! be logged in again while a transaction is in doubt, the client asks what became of it, which needs no login.

use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use bank_core::limits::{
    ATTEMPT_DEADLINE, IDLE_DEADLINE, KEEP_ALIVE, KEEP_ALIVE_DEADLINE, RECONNECT_BACKOFF, TRANSACTION_DEADLINE,
};
use bank_core::protocol::ErrorCode;
use bank_core::{AccountId, Amount, CardNumber, TerminalId, TerminalSecret, TxnId};
use zeroize::Zeroizing;

use crate::connection::{
    Balance, Connection, ConnectionError, Customer, Fate, Outcome, StatementLine, Totals,
};
use crate::notices::Notices;
use crate::tls::Privacy;
use crate::txn_ids::TxnIds;

/// Which bank a client talks to, as whom, and how patiently.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The bank's address.
    pub server: String,
    /// The terminal's id.
    pub terminal: TerminalId,
    /// How what they say is kept from others.
    pub privacy: Privacy,
    /// What proves that it is that terminal.
    pub secret: Option<TerminalSecret>,
    /// The last transaction id that the terminal has made, if it knows: further ones are later.
    pub last_txn_id: Option<TxnId>,
    /// For a request and all its repetitions.
    pub deadline: Duration,
    /// For one attempt at a request.
    pub attempt_deadline: Duration,
}

impl ClientConfig {
    /// A terminal without a secret and without TLS, and the usual deadlines.
    pub fn new(server: &str, terminal: TerminalId) -> ClientConfig {
        ClientConfig {
            server: server.to_owned(),
            terminal,
            privacy: Privacy::Loopback,
            secret: None,
            last_txn_id: None,
            deadline: TRANSACTION_DEADLINE,
            attempt_deadline: ATTEMPT_DEADLINE,
        }
    }
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The bank was not reached or not understood, or said no. If this was a transaction, nothing happened.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The request is a customer's, and there is none: nothing was asked.
    #[error("nobody is logged in: log in with a card and its PIN first")]
    NobodyLoggedIn,
    /// The deadline has passed, and the transaction may have been done or not.
    #[error(
        "transaction {id} may have been carried out or not: {source}. Asked for again under the same id, it is not \
         carried out twice, and the bank tells what became of it"
    )]
    InDoubt {
        /// Its id: ask again under it.
        id: TxnId,
        /// Why it was not answered.
        source: ConnectionError,
    },
    /// The transaction could not be asked for again. It was not done, nor will it be.
    #[error("transaction {id} was given up, and is certain not to be carried out: {source}")]
    GivenUp {
        /// Its id, which is of no further use.
        id: TxnId,
        /// Why it could not be asked for again.
        source: ConnectionError,
    },
    /// The transaction could not be asked for again. It was done, and this terminal has undone it meanwhile.
    #[error("transaction {id} was carried out and has been undone since: {source}")]
    Undone {
        /// Its id, which is of no further use.
        id: TxnId,
        /// Why it could not be asked for again.
        source: ConnectionError,
    },
    /// The PIN may have been changed or not; the customer was logged out.
    #[error(
        "it is not known whether the PIN was changed: {source}. Try the new PIN first, and then the old one"
    )]
    PinInDoubt {
        /// What went wrong.
        source: ConnectionError,
    },
}

impl ClientError {
    /// The code that the bank gave, or would have given, if it is known.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            ClientError::Connection(error) => error.code(),
            ClientError::NobodyLoggedIn => Some(ErrorCode::NotLoggedIn),
            ClientError::GivenUp { .. } => Some(ErrorCode::GivenUp),
            ClientError::InDoubt { .. } | ClientError::Undone { .. } | ClientError::PinInDoubt { .. } => None,
        }
    }
}

/// Hears why something is asked again, and whether it hears so for the first time about this request.
type RetryObserver = Box<dyn FnMut(&ConnectionError, bool)>;

/// A terminal's way to the bank.
pub struct Client {
    config: ClientConfig,
    connection: Option<Connection>,
    session: Option<Session>,
    txn_ids: TxnIds,
    on_retry: RetryObserver,
    notices: Notices,
    /// When the bank was last asked, or tried in vain.
    asked: Instant,
}

/// A customer whom the bank has let in, and what it takes to be let in again.
struct Session {
    card: CardNumber,
    pin: Zeroizing<String>,
    customer: Customer,
    /// When the customer must have asked for something: whoever has walked away is not logged in again for the next.
    ends: Instant,
}

impl Client {
    /// A client that connects when it is first asked for something.
    pub fn new(config: ClientConfig) -> Client {
        Client {
            txn_ids: TxnIds::after(config.last_txn_id),
            config,
            connection: None,
            session: None,
            on_retry: Box::new(|_, _| ()),
            notices: Notices::default(),
            asked: Instant::now(),
        }
    }

    /// Has somebody told, before each pause, why a request is made again after it, and whether that is not the same reason
    /// as the time before.
    pub fn on_retry(&mut self, observer: impl FnMut(&ConnectionError, bool) + 'static) {
        self.on_retry = Box::new(observer);
    }

    /// Connects, unless there is a connection. This is tried once only, for those who would rather know at once that the
    /// bank is away.
    ///
    /// # Errors
    /// [`ConnectionError::Unreachable`], or [`ConnectionError::Refused`] if the bank does not want to talk.
    pub fn connect(&mut self) -> Result<(), ClientError> {
        if self.connection.is_none() {
            let deadline = Instant::now() + self.config.attempt_deadline.min(self.config.deadline);
            self.connection = Some(self.open(deadline)?);
        }
        Ok(())
    }

    /// Waits until the bank answers.
    ///
    /// # Errors
    /// If it has not by the deadline, or if it does not want to talk.
    pub fn ping(&mut self) -> Result<(), ClientError> {
        self.ask_freely(As::Terminal, Connection::ping)
    }

    /// What the bank's operators have had said since this was asked last, as far as it was heard: the newest, the oldest of them
    /// first. Nothing in it can drive a screen.
    pub fn notices(&mut self) -> Vec<String> {
        self.notices.take()
    }

    /// The same for whoever has nothing to ask, and calls this again and again: it looks whether the bank has said something, and keeps
    /// the connection open, or tries once in [`KEEP_ALIVE`] to make one. That may take [`KEEP_ALIVE_DEADLINE`]; otherwise it does
    /// not wait.
    pub fn listen(&mut self) -> Vec<String> {
        if let Some(mut connection) = self.connection.take() {
            let there = connection.listen();
            self.put_back(connection, there);
        }
        if self.session.is_none() && self.asked.elapsed() >= KEEP_ALIVE {
            let deadline = Instant::now() + KEEP_ALIVE_DEADLINE.min(self.config.attempt_deadline);
            let connection = match self.connection.take() {
                Some(connection) => Ok(connection),
                None => self.open(deadline),
            };
            if let Ok(mut connection) = connection {
                connection.answer_by(deadline);
                let there = connection.ping().is_ok();
                self.put_back(connection, there);
            }
            self.asked = Instant::now();
        }
        self.notices.take()
    }

    /// The customer who is logged in. Errors may end a session; then there is none.
    pub fn customer(&self) -> Option<&Customer> {
        self.session.as_ref().map(|session| &session.customer)
    }

    /// Shows a card and its PIN; whoever is still logged in is logged out before. Until the customer leaves, the PIN is
    /// kept in memory, to log in again on a new connection.
    ///
    /// # Errors
    /// [`ConnectionError::Refused`] with [`ErrorCode::LoginRefused`] if they are not accepted. After an error that
    /// [leaves doubt](ConnectionError::leaves_doubt) the PIN may have been counted as wrong, if it was.
    pub fn login(&mut self, card: &CardNumber, pin: &str) -> Result<Customer, ClientError> {
        self.logout();
        let mut trial = Trial::new(&self.config, Repeat::UntilHeard);
        let deadline = trial.deadline;
        let customer = self.ask(&mut trial, As::Terminal, |connection| {
            // Since it is not repeated, it may take all the time that there is.
            connection.answer_by(deadline);
            connection.login(card, pin)
        })?;
        self.session = Some(Session {
            card: card.clone(),
            pin: Zeroizing::new(pin.to_owned()),
            customer: customer.clone(),
            ends: Instant::now() + IDLE_DEADLINE,
        });
        Ok(customer)
    }

    /// Ends the customer's session. Whether the bank hears it or not, the customer is gone: the connection's end logs
    /// out as well.
    pub fn logout(&mut self) {
        self.session = None;
        if let Some(mut connection) = self.connection.take_if(|connection| connection.is_logged_in()) {
            connection.answer_by(Instant::now() + self.config.attempt_deadline.min(self.config.deadline));
            let there = connection.logout().is_ok();
            self.put_back(connection, there);
        }
    }

    /// The balance of the customer's account.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn balance(&mut self) -> Result<Balance, ClientError> {
        self.ask_freely(As::Customer, Connection::balance)
    }

    /// The account's newest rows, at most `lines` of them, the newest first, and the balance that they lead to.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn statement(&mut self, lines: u16) -> Result<(Balance, Vec<StatementLine>), ClientError> {
        self.ask_freely(As::Customer, |connection| connection.statement(lines))
    }

    /// A new transaction id, later than all that this terminal has made.
    pub fn new_txn_id(&mut self) -> TxnId {
        self.txn_ids.make()
    }

    /// Deposits an amount under an id of the caller's, who may ask again under it and be given the same answer.
    ///
    /// # Errors
    /// [`ClientError::InDoubt`] if it is not known what happened. After any other error, nothing has, or it has been undone;
    /// after [`ConnectionError::StaleId`] a new id will do.
    pub fn deposit(&mut self, txn_id: TxnId, amount: Amount) -> Result<Outcome, ClientError> {
        self.transact(txn_id, |connection| connection.deposit(txn_id, amount))
    }

    /// Withdraws an amount.
    ///
    /// # Errors
    /// As [`Client::deposit`].
    pub fn withdraw(&mut self, txn_id: TxnId, amount: Amount) -> Result<Outcome, ClientError> {
        self.transact(txn_id, |connection| connection.withdraw(txn_id, amount))
    }

    /// Transfers an amount to another account.
    ///
    /// # Errors
    /// As [`Client::deposit`].
    pub fn transfer(&mut self, txn_id: TxnId, to: AccountId, amount: Amount) -> Result<Outcome, ClientError> {
        self.transact(txn_id, |connection| connection.transfer(txn_id, to, amount))
    }

    /// Gives the customer's card a new PIN.
    ///
    /// # Errors
    /// [`ConnectionError::Refused`] with [`ErrorCode::LoginRefused`] if `old` is not the PIN so far.
    /// [`ClientError::PinInDoubt`] if it is not known what happened.
    pub fn change_pin(&mut self, old: &str, new: &str) -> Result<(), ClientError> {
        let mut trial = Trial::new(&self.config, Repeat::UntilHeard);
        let changed = self.ask(&mut trial, As::Customer, |connection| {
            connection.change_pin(old, new)
        });
        match changed {
            Ok(()) => {
                if let Some(session) = &mut self.session {
                    session.pin = Zeroizing::new(new.to_owned());
                }
                Ok(())
            }
            Err(ClientError::Connection(source)) if trial.may_be_done => {
                // Which PIN would log in again is not known, and a wrong one counts.
                self.session = None;
                Err(ClientError::PinInDoubt { source })
            }
            Err(error) => Err(error),
        }
    }

    /// Undoes a transaction of this terminal; one that the bank does not know is never done thereafter.
    ///
    /// # Errors
    /// [`ClientError::InDoubt`] if it is not known what happened: asking again does no harm.
    pub fn reverse(&mut self, account: AccountId, txn_id: TxnId) -> Result<Fate, ClientError> {
        self.ask_for_terminal(txn_id, |connection| connection.reverse(account, txn_id))
    }

    /// Asks what became of a transaction of this terminal; one that the bank does not know is never done thereafter.
    ///
    /// # Errors
    /// [`ClientError::InDoubt`] if the answer did not come: asking again does no harm.
    pub fn resolve(&mut self, account: AccountId, txn_id: TxnId) -> Result<Fate, ClientError> {
        self.ask_for_terminal(txn_id, |connection| connection.resolve(account, txn_id))
    }

    /// Credits notes that this terminal has taken, under the id of the deposit that got no answer.
    ///
    /// # Errors
    /// [`ClientError::InDoubt`] if it is not known what happened: asking again does no harm.
    pub fn advice(
        &mut self,
        account: AccountId,
        txn_id: TxnId,
        amount: Amount,
    ) -> Result<Outcome, ClientError> {
        self.ask_for_terminal(txn_id, |connection| connection.advice(account, txn_id, amount))
    }

    /// How much cash came into this terminal less what went out, since the bank has known it.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn totals(&mut self) -> Result<Totals, ClientError> {
        self.ask_freely(As::Terminal, Connection::totals)
    }

    fn ask_freely<R>(
        &mut self,
        asking: As,
        request: impl FnMut(&mut Connection) -> Result<R, ConnectionError>,
    ) -> Result<R, ClientError> {
        self.ask(&mut Trial::new(&self.config, Repeat::Freely), asking, request)
    }

    fn ask_for_terminal<R>(
        &mut self,
        id: TxnId,
        request: impl FnMut(&mut Connection) -> Result<R, ConnectionError>,
    ) -> Result<R, ClientError> {
        let mut trial = Trial::new(&self.config, Repeat::Freely);
        match self.ask(&mut trial, As::Terminal, request) {
            Err(ClientError::Connection(source)) if trial.may_be_done => {
                Err(ClientError::InDoubt { id, source })
            }
            other => other,
        }
    }

    fn transact(
        &mut self,
        id: TxnId,
        request: impl FnMut(&mut Connection) -> Result<Outcome, ConnectionError>,
    ) -> Result<Outcome, ClientError> {
        // Kept, because the session may be over when it is wanted.
        let account = self.customer().ok_or(ClientError::NobodyLoggedIn)?.account;
        let mut trial = Trial::new(&self.config, Repeat::UnderItsId);
        let source = match self.ask(&mut trial, As::Customer, request) {
            Err(ClientError::Connection(error)) => error,
            other => return other,
        };
        if let ConnectionError::StaleId { newest } = source {
            self.txn_ids.skip_to(newest);
        }
        if !trial.may_be_done || tells_that_nothing_happened(&source) {
            return Err(source.into());
        }
        if trial.out_of_time {
            return Err(ClientError::InDoubt { id, source });
        }
        // It cannot be asked for again: the customer cannot be logged in, or the answer was not understood.
        trial.repeat = Repeat::Freely;
        match self.ask(&mut trial, As::Terminal, |connection| {
            connection.resolve(account, id)
        }) {
            Ok(Fate::Applied(lsn, receipt)) => Ok(Outcome::Approved(lsn, receipt)),
            Ok(Fate::Declined {
                lsn,
                receipt,
                code,
                message,
            }) => Ok(Outcome::Declined {
                lsn,
                receipt,
                code,
                message,
            }),
            Ok(Fate::Reversed(..)) => Err(ClientError::Undone { id, source }),
            Ok(Fate::Never) => Err(ClientError::GivenUp { id, source }),
            Err(_) => Err(ClientError::InDoubt { id, source }),
        }
    }

    /// Makes a request until it is answered, as often and as long as the trial allows.
    fn ask<R>(
        &mut self,
        trial: &mut Trial,
        asking: As,
        mut request: impl FnMut(&mut Connection) -> Result<R, ConnectionError>,
    ) -> Result<R, ClientError> {
        if asking == As::Customer {
            match &mut self.session {
                Some(session) if Instant::now() < session.ends => {
                    session.ends = Instant::now() + IDLE_DEADLINE;
                }
                _ => {
                    self.logout();
                    return Err(ClientError::NobodyLoggedIn);
                }
            }
        }
        let mut reasons = None;
        loop {
            let Failure { stage, error } = match self.attempt(trial.attempt_deadline(), asking, &mut request)
            {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let ends_session = match error.code() {
                Some(ErrorCode::LoginRefused) => stage == Stage::LoggingIn,
                Some(ErrorCode::SessionEnded | ErrorCode::NotLoggedIn) => true,
                _ => false,
            };
            if ends_session {
                self.session = None;
            }
            match trial.pause_after(stage, &error) {
                Some(pause) => {
                    let reason = std::mem::discriminant(&error);
                    (self.on_retry)(&error, reasons.replace(reason) != Some(reason));
                    wait(pause);
                }
                None => return Err(error.into()),
            }
        }
    }

    /// Makes a request once, on the connection that there is or on a new one.
    fn attempt<R>(
        &mut self,
        deadline: Instant,
        asking: As,
        request: &mut impl FnMut(&mut Connection) -> Result<R, ConnectionError>,
    ) -> Result<R, Failure> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self
                .open(deadline)
                .map_err(|error| Stage::Connecting.failed(error))?,
        };
        connection.answer_by(deadline);
        let logged_in = match &self.session {
            Some(session) if asking == As::Customer => session.resume(&mut connection),
            _ => Ok(()),
        };
        let answer = match logged_in {
            Ok(()) => request(&mut connection).map_err(|error| Stage::Asking.failed(error)),
            Err(error) => Err(Stage::LoggingIn.failed(error)),
        };
        // Whoever is logged in on it may be somebody else.
        let elsewhere = matches!(
            &answer,
            Err(Failure {
                stage: Stage::LoggingIn,
                error: ConnectionError::Unexpected,
            })
        );
        if elsewhere {
            self.session = None;
        }
        let usable = connection.is_open() && !elsewhere;
        self.put_back(connection, usable);
        self.asked = Instant::now();
        answer
    }

    /// Keeps what was heard on a connection, and the connection itself if it is of further use.
    fn put_back(&mut self, mut connection: Connection, usable: bool) {
        self.notices.take_from(connection.unread_notices());
        self.connection = usable.then_some(connection);
    }

    fn open(&mut self, deadline: Instant) -> Result<Connection, ConnectionError> {
        let ClientConfig {
            server,
            terminal,
            privacy,
            secret,
            ..
        } = &self.config;
        let connection = Connection::open(server, privacy, *terminal, secret.as_ref(), deadline)?;
        self.txn_ids.hear(connection.server_time());
        Ok(connection)
    }
}

impl Session {
    /// Logs the customer in again, unless that is done.
    fn resume(&self, connection: &mut Connection) -> Result<(), ConnectionError> {
        if connection.is_logged_in() {
            return Ok(());
        }
        let customer = connection.login(&self.card, &self.pin)?;
        // The bank may be another than before, as far as a client can know.
        if customer.account != self.customer.account {
            return Err(ConnectionError::Unexpected);
        }
        Ok(())
    }
}

/// On whose behalf something is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum As {
    /// The terminal's own: nobody needs to be logged in.
    Terminal,
    /// The customer's, who is logged in again where that is needed.
    Customer,
}

/// How far an attempt came.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Connecting,
    LoggingIn,
    Asking,
}

impl Stage {
    fn failed(self, error: ConnectionError) -> Failure {
        Failure { stage: self, error }
    }
}

/// An attempt without an answer.
struct Failure {
    stage: Stage,
    error: ConnectionError,
}

/// When a request is made again that may have reached the bank.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeat {
    /// Always.
    Freely,
    /// While the customer can be logged in without another doubt: each login in doubt might have counted as a wrong PIN, if
    /// the PIN has been changed elsewhere, and what became of the transaction can be learnt without.
    UnderItsId,
    /// Never.
    UntilHeard,
}

/// The attempts at a request.
struct Trial {
    deadline: Instant,
    attempt: Duration,
    pauses: ExponentialBackoff,
    repeat: Repeat,
    /// Whether an attempt may have been carried out although no answer came.
    may_be_done: bool,
    /// Whether it is the deadline that ended the attempts.
    out_of_time: bool,
}

impl Trial {
    fn new(config: &ClientConfig, repeat: Repeat) -> Trial {
        let (first, longest) = RECONNECT_BACKOFF;
        let pauses = ExponentialBuilder::new()
            .with_min_delay(first)
            .with_max_delay(longest)
            .without_max_times()
            .with_jitter();
        Trial {
            deadline: Instant::now() + config.deadline,
            attempt: config.attempt_deadline,
            pauses: pauses.build(),
            repeat,
            may_be_done: false,
            out_of_time: false,
        }
    }

    fn attempt_deadline(&self) -> Instant {
        self.deadline.min(Instant::now() + self.attempt)
    }

    /// How long to wait before the next attempt, if there is to be one.
    fn pause_after(&mut self, stage: Stage, error: &ConnectionError) -> Option<Duration> {
        self.may_be_done |= stage == Stage::Asking && error.leaves_doubt();
        let again = match self.repeat {
            Repeat::Freely => true,
            Repeat::UnderItsId => !(self.may_be_done && stage == Stage::LoggingIn && error.leaves_doubt()),
            Repeat::UntilHeard => !self.may_be_done,
        };
        if !again || !error.may_pass() {
            return None;
        }
        let pause = self.pauses.next()?;
        self.out_of_time = Instant::now() + pause >= self.deadline;
        (!self.out_of_time).then_some(pause)
    }
}

/// Whether a refusal is one of the id itself: such a transaction was not done in an earlier attempt either.
fn tells_that_nothing_happened(error: &ConnectionError) -> bool {
    matches!(error, ConnectionError::StaleId { .. })
        || matches!(error.code(), Some(ErrorCode::TxnIdReused | ErrorCode::TxnIdAhead))
}

/// Waits before the next attempt: here the clock is all there is to wait for.
#[allow(clippy::disallowed_methods)]
fn wait(pause: Duration) {
    std::thread::sleep(pause);
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    use std::rc::Rc;

    use bank_core::protocol::ReplyBody;
    use bank_core::{Lsn, Timestamp};

    use super::*;
    use crate::fake_bank::{
        ACCOUNT, Act, FakeBank, LSN, SERVER_TIME, approved, declined, logged_in, receipt,
    };

    const PIN: &str = "2468";

    fn id() -> TxnId {
        "017f22e2-79b0-7cc3-98c4-dc0c0c07398f".parse().unwrap()
    }

    fn amount() -> Amount {
        Amount::from_minor(2000).unwrap()
    }

    fn card() -> CardNumber {
        CardNumber::new("Ken").unwrap()
    }

    /// A client of a bank that does as the script says, connection by connection.
    fn client(script: impl IntoIterator<Item = Vec<Act>>) -> (Client, FakeBank) {
        let bank = FakeBank::open(script);
        let client = Client::new(ClientConfig::new(
            bank.address(),
            TerminalId::new("ATM-1").unwrap(),
        ));
        (client, bank)
    }

    /// A client with a customer logged in, who was let in on the first connection.
    fn customer(script: impl IntoIterator<Item = Vec<Act>>) -> (Client, FakeBank) {
        let mut script = script.into_iter();
        let mut first = vec![Act::Answer(logged_in())];
        first.extend(script.next().unwrap_or_default());
        let (mut client, bank) = client(std::iter::once(first).chain(script));
        client.login(&card(), PIN).unwrap();
        (client, bank)
    }

    /// From now on a request has a little time, and each attempt less of it.
    fn hurry(client: &mut Client) {
        client.config.attempt_deadline = Duration::from_millis(100);
        client.config.deadline = Duration::from_millis(900);
    }

    fn withdraw(client: &mut Client) -> Result<Outcome, ClientError> {
        client.withdraw(id(), amount())
    }

    fn the_approval() -> Outcome {
        Outcome::Approved(Lsn::new(LSN), receipt(id()))
    }

    const BALANCE: ReplyBody<'_> = ReplyBody::Balance {
        balance: 100,
        currency: *b"USD",
    };

    fn refusal(code: ErrorCode) -> ReplyBody<'static> {
        ReplyBody::Error {
            code: code.number(),
            message: "No.",
        }
    }

    /// A withdrawal whose first answer was lost, with what the bank does on the connections after that.
    fn lost_withdrawal(
        then: impl IntoIterator<Item = Vec<Act>>,
    ) -> (Client, FakeBank, Result<Outcome, ClientError>) {
        let (mut client, bank) = customer(std::iter::once(vec![Act::HangUp]).chain(then));
        let result = withdraw(&mut client);
        (client, bank, result)
    }

    #[test]
    fn a_withdrawal_without_an_answer_is_asked_for_again_under_its_id_by_the_customer_logged_in_again() {
        let (_, bank, result) =
            lost_withdrawal([vec![Act::Answer(logged_in()), Act::Answer(approved(id()))]]);
        assert_eq!(result.unwrap(), the_approval());
        let withdrawal = format!("Withdraw {} 2000", id());
        let login = format!("Login Ken {PIN}");
        assert_eq!(
            bank.heard(),
            [&login, &withdrawal, &login, &withdrawal].map(String::as_str)
        );
    }

    #[test]
    fn a_declined_repetition_is_a_decline() {
        let (_, _, result) = lost_withdrawal([vec![Act::Answer(logged_in()), Act::Answer(declined(id()))]]);
        assert!(
            matches!(result, Ok(Outcome::Declined { code: 4, .. })),
            "{result:?}"
        );
    }

    #[test]
    fn a_connection_that_was_closed_meanwhile_is_replaced() {
        let again = || vec![Act::Answer(logged_in()), Act::Answer(approved(id()))];
        for first in [
            vec![],
            vec![Act::Notice(ErrorCode::TimedOut)],
            vec![Act::Notice(ErrorCode::ShuttingDown)],
        ] {
            let (mut client, bank) = customer([first, again()]);
            assert_eq!(withdraw(&mut client).unwrap(), the_approval());
            assert_eq!(bank.heard().last().unwrap(), &format!("Withdraw {} 2000", id()));
        }
    }

    #[test]
    fn a_bank_that_is_full_or_stopping_or_cuts_the_greeting_short_is_tried_again() {
        let (mut client, bank) = client([
            vec![Act::Refuse(ErrorCode::TooManyConnections)],
            vec![Act::Refuse(ErrorCode::ShuttingDown)],
            vec![Act::RefuseSilently],
            vec![Act::Answer(logged_in()), Act::Answer(BALANCE)],
        ]);
        client.login(&card(), PIN).unwrap();
        assert_eq!(client.balance().unwrap().balance.minor(), 100);
        assert_eq!(bank.heard(), [format!("Login Ken {PIN}"), "Balance".into()]);
    }

    #[test]
    fn a_notice_is_no_answer_and_no_hang_up_wherever_it_comes() {
        let (mut client, bank) = customer([vec![
            Act::AnswerAndTell(BALANCE, "We close at six."),
            Act::Tell("Soon."),
            Act::Answer(approved(id())),
            Act::Tell("\u{1b}[2JNow."),
            Act::Answer(BALANCE),
            Act::Answer(ReplyBody::LoggedOut),
        ]]);
        client.balance().unwrap();
        assert_eq!(withdraw(&mut client).unwrap(), the_approval());
        assert_eq!(client.notices(), ["We close at six.", "Soon."]);
        client.balance().unwrap();
        client.logout();
        assert_eq!(client.notices(), ["\u{fffd}[2JNow."]);
        assert!(client.notices().is_empty());
        assert_eq!(
            (bank.connections(), bank.heard().len()),
            (1, 5),
            "{:?}",
            bank.heard()
        );
    }

    #[test]
    fn who_asks_nothing_hears_notices_and_notices_the_end() {
        let tell = || vec![Act::Tell("Hello."), Act::Answer(ReplyBody::Totals(Vec::new()))];
        let (mut client, _) = client([tell(), tell()]);
        for _ in 0..2 {
            client.connect().unwrap();
            let mut heard = Vec::new();
            while heard.is_empty() {
                heard = client.listen();
            }
            assert_eq!(heard, ["Hello."]);
            client.totals().unwrap();
            // The bank hangs up: the next one is asked on a new connection.
            while client.connection.is_some() {
                assert!(client.listen().is_empty());
            }
        }
    }

    #[test]
    fn an_idle_client_asks_now_and_then_whether_the_bank_is_there() {
        let pong = || ReplyBody::Pong {
            server_time: SERVER_TIME,
        };
        let (mut client, bank) = client([
            vec![Act::AnswerAndTell(pong(), "Hello."), Act::HangUp],
            vec![Act::Answer(pong())],
        ]);
        let later = |client: &mut Client| {
            client.asked = Instant::now()
                .checked_sub(KEEP_ALIVE)
                .expect("the machine was started before");
            client.listen()
        };
        assert!(client.listen().is_empty());
        assert_eq!(bank.connections(), 0);
        let mut heard = later(&mut client);
        heard.extend(client.listen());
        assert_eq!(heard, ["Hello."]);
        assert!(later(&mut client).is_empty());
        assert!(client.connection.is_none(), "it hung up instead of an answer");
        later(&mut client);
        assert!(client.connection.is_some());
        assert_eq!((bank.connections(), bank.heard().len()), (2, 3));
    }

    #[test]
    fn a_bank_of_another_version_is_refused_by_both_versions_names() {
        let refused = |oldest, newest| {
            let (mut client, _) = client([vec![Act::RefuseVersion(oldest, newest)]]);
            let error = client.ping().unwrap_err();
            assert_eq!(error.code(), Some(ErrorCode::UnsupportedVersion));
            error.to_string()
        };
        assert_eq!(
            refused(3, 4),
            "this terminal speaks version 2 of the protocol, the bank versions 3 to 4: the terminal's program must be \
             brought up to date"
        );
        assert!(refused(1, 1).ends_with("the bank version 1: the bank's program must be brought up to date"));
    }

    #[test]
    fn a_bank_that_does_not_want_this_terminal_is_not_asked_again() {
        let (mut client, _) = client([vec![Act::Refuse(ErrorCode::TerminalRefused)]]);
        let error = client.ping().unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::TerminalRefused));
    }

    #[test]
    fn a_busy_bank_is_asked_again_on_the_same_connection() {
        let busy = || Act::Answer(refusal(ErrorCode::Busy));
        let (mut client, bank) = client([vec![
            busy(),
            Act::Answer(logged_in()),
            busy(),
            Act::Answer(approved(id())),
        ]]);
        client.login(&card(), PIN).unwrap();
        assert_eq!(withdraw(&mut client).unwrap(), the_approval());
        assert_eq!(bank.heard().len(), 4);
    }

    #[test]
    fn whoever_waits_is_told_why() {
        let (mut client, _) = client([vec![
            Act::Answer(refusal(ErrorCode::Busy)),
            Act::Answer(logged_in()),
        ]]);
        let told = Rc::new(RefCell::new(Vec::new()));
        let teller = Rc::clone(&told);
        client.on_retry(move |error, _| teller.borrow_mut().push(error.code()));
        client.login(&card(), PIN).unwrap();
        assert_eq!(*told.borrow(), [Some(ErrorCode::Busy)]);
    }

    #[test]
    fn a_bank_that_never_answers_leaves_the_transaction_in_doubt_with_its_id() {
        // The first withdrawal hangs, and then every connection before it is greeted.
        let (mut client, bank) = customer([vec![Act::Silence], vec![Act::GreetNobody]]);
        hurry(&mut client);
        match withdraw(&mut client) {
            Err(ClientError::InDoubt { id: in_doubt, .. }) => assert_eq!(in_doubt, id()),
            other => panic!("{other:?}"),
        }
        assert!(
            bank.connections() >= 2,
            "one attempt does not use up all the time"
        );
    }

    #[test]
    fn a_bank_that_cannot_be_reached_leaves_no_doubt() {
        let (mut client, _) = client([]);
        hurry(&mut client);
        let login = client.login(&card(), PIN);
        assert!(
            matches!(
                login,
                Err(ClientError::Connection(ConnectionError::Unreachable { .. }))
            ),
            "{login:?}"
        );
        // Nor does one that went away before it was asked.
        let (mut client, _) = customer([vec![]]);
        hurry(&mut client);
        client.connection = None;
        let withdrawn = withdraw(&mut client);
        assert!(
            matches!(
                withdrawn,
                Err(ClientError::Connection(ConnectionError::Unreachable { .. }))
            ),
            "{withdrawn:?}"
        );
        assert!(
            client.customer().is_some(),
            "the customer may go on when the bank is back"
        );
    }

    #[test]
    fn a_customer_who_is_not_let_in_again_is_told_what_became_of_the_transaction() {
        let shut_out = |fate| vec![Act::Answer(refusal(ErrorCode::LoginRefused)), Act::Answer(fate)];
        let resolved = |fate| {
            let (client, bank, result) = lost_withdrawal([shut_out(fate)]);
            assert!(client.customer().is_none(), "the session is over");
            assert_eq!(
                bank.heard().last().unwrap(),
                &format!("Resolve {ACCOUNT} {}", id()),
                "asked for on the connection that there is"
            );
            result
        };
        assert_eq!(resolved(approved(id())).unwrap(), the_approval());
        assert!(matches!(
            resolved(declined(id())),
            Ok(Outcome::Declined { code: 4, .. })
        ));
        let given_up = resolved(ReplyBody::Never).unwrap_err();
        assert!(matches!(given_up, ClientError::GivenUp { .. }), "{given_up:?}");
        assert_eq!(given_up.code(), Some(ErrorCode::GivenUp));
        let undone = resolved(ReplyBody::Reversed(receipt(id())));
        assert!(matches!(undone, Err(ClientError::Undone { .. })), "{undone:?}");
        let unsettled = resolved(refusal(ErrorCode::InternalError));
        assert!(
            matches!(unsettled, Err(ClientError::InDoubt { .. })),
            "{unsettled:?}"
        );
    }

    #[test]
    fn a_card_that_is_blocked_meanwhile_and_a_login_in_doubt_are_settled_without_a_login() {
        for second in [
            vec![
                Act::Answer(logged_in()),
                Act::Answer(refusal(ErrorCode::SessionEnded)),
            ],
            vec![Act::HangUp],
        ] {
            let (_, bank, result) = lost_withdrawal([
                // What is left of the connection serves, or the next one does.
                second
                    .into_iter()
                    .chain([Act::Answer(ReplyBody::Never)])
                    .collect(),
                vec![Act::Answer(ReplyBody::Never)],
            ]);
            assert!(matches!(result, Err(ClientError::GivenUp { .. })), "{result:?}");
            assert!(bank.heard().last().unwrap().starts_with("Resolve"));
        }
    }

    #[test]
    fn a_customer_who_is_not_let_in_again_before_anything_was_asked_has_nothing_to_settle() {
        let (mut client, bank) = customer([
            vec![Act::Notice(ErrorCode::TimedOut)],
            vec![Act::Answer(refusal(ErrorCode::LoginRefused))],
        ]);
        assert_eq!(
            withdraw(&mut client).unwrap_err().code(),
            Some(ErrorCode::LoginRefused)
        );
        assert!(!bank.heard().iter().any(|heard| heard.starts_with("Resolve")));
        assert!(matches!(client.balance(), Err(ClientError::NobodyLoggedIn)));
    }

    #[test]
    fn a_refused_id_is_final_although_an_answer_was_lost() {
        let refused = |body| lost_withdrawal([vec![Act::Answer(logged_in()), Act::Answer(body)]]);
        for code in [ErrorCode::TxnIdReused, ErrorCode::TxnIdAhead] {
            let (_, _, result) = refused(refusal(code));
            assert_eq!(result.unwrap_err().code(), Some(code));
        }
        let newest = SERVER_TIME + 5_000_000;
        let (mut client, _, result) = refused(ReplyBody::StaleId { newest });
        let newest = Timestamp::from_millis(newest);
        match result {
            Err(ClientError::Connection(ConnectionError::StaleId { newest: told })) => {
                assert_eq!(told, newest);
            }
            other => panic!("{other:?}"),
        }
        assert!(Timestamp::from(client.new_txn_id()) > newest, "a new id will do");
    }

    #[test]
    fn a_login_is_repeated_only_if_the_bank_has_not_seen_it() {
        let (mut lost, bank) = client([vec![Act::HangUp], vec![Act::Answer(logged_in())]]);
        let error = lost.login(&card(), PIN).unwrap_err();
        assert!(
            matches!(error, ClientError::Connection(ConnectionError::Lost(_))),
            "{error:?}"
        );
        assert_eq!(bank.heard().len(), 1, "a wrong PIN would have counted");
        assert!(lost.customer().is_none());

        let (mut unseen, bank) = client([
            vec![Act::Notice(ErrorCode::ShuttingDown)],
            vec![Act::Answer(logged_in())],
        ]);
        assert_eq!(unseen.login(&card(), PIN).unwrap().holder, "Ken");
        assert_eq!(bank.heard().last().unwrap(), &format!("Login Ken {PIN}"));
    }

    #[test]
    fn a_pin_that_was_accepted_is_shown_again_although_a_login_with_it_was_lost() {
        let (mut client, bank) = customer([
            vec![Act::Notice(ErrorCode::TimedOut)],
            vec![Act::HangUp],
            vec![Act::Answer(logged_in()), Act::Answer(BALANCE)],
        ]);
        assert_eq!(client.balance().unwrap().balance.minor(), 100);
        let logins = bank
            .heard()
            .iter()
            .filter(|heard| heard.starts_with("Login"))
            .count();
        assert_eq!(logins, 3);
    }

    #[test]
    fn who_has_left_is_not_logged_in_again() {
        let (mut client, bank) = customer([vec![Act::HangUp], vec![Act::Answer(ReplyBody::Never)]]);
        client.logout();
        assert!(client.customer().is_none());
        assert!(matches!(withdraw(&mut client), Err(ClientError::NobodyLoggedIn)));
        assert_eq!(
            client.resolve(AccountId::new(ACCOUNT).unwrap(), id()).unwrap(),
            Fate::Never
        );
        assert_eq!(
            bank.heard()[1..],
            ["Logout".to_owned(), format!("Resolve {ACCOUNT} {}", id())]
        );
    }

    #[test]
    fn who_walks_away_is_not_logged_in_again_for_the_next() {
        let (mut client, bank) = customer([vec![Act::HangUp]]);
        client.session.as_mut().unwrap().ends = Instant::now();
        assert!(matches!(withdraw(&mut client), Err(ClientError::NobodyLoggedIn)));
        assert!(client.customer().is_none());
        assert!(!bank.heard().iter().any(|heard| heard.starts_with("Withdraw")));
    }

    #[test]
    fn nothing_is_asked_on_another_account_than_before() {
        let elsewhere = ReplyBody::LoggedIn {
            account: 2001,
            currency: *b"USD",
            holder: "Ken",
        };
        let (mut client, bank) =
            customer([vec![], vec![Act::Answer(elsewhere), Act::Answer(approved(id()))]]);
        for _ in 0..2 {
            assert!(withdraw(&mut client).is_err());
            assert!(client.customer().is_none());
        }
        assert!(!bank.heard().iter().any(|heard| heard.starts_with("Withdraw")));
    }

    #[test]
    fn a_change_of_pin_is_not_repeated_and_one_that_succeeded_is_remembered() {
        let (mut client, bank) = customer([vec![Act::HangUp]]);
        let error = client.change_pin(PIN, "1357").unwrap_err();
        assert!(matches!(error, ClientError::PinInDoubt { .. }), "{error:?}");
        assert!(client.customer().is_none(), "which PIN would do is not known");
        assert_eq!(bank.heard().len(), 2);

        let (mut client, bank) = customer([
            vec![
                Act::Answer(refusal(ErrorCode::LoginRefused)),
                Act::Answer(ReplyBody::PinChanged),
            ],
            vec![Act::Answer(logged_in()), Act::Answer(BALANCE)],
        ]);
        let error = client.change_pin("1111", "1357").unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::LoginRefused));
        client.change_pin(PIN, "1357").unwrap();
        client.balance().unwrap();
        assert_eq!(bank.heard()[3..], ["Login Ken 1357", "Balance"]);
    }

    #[test]
    fn a_terminal_settles_its_own_affairs_without_a_login_and_asks_until_it_is_answered() {
        let account = AccountId::new(ACCOUNT).unwrap();
        let totals = || ReplyBody::Totals(Vec::new());
        let (mut client, bank) = client([
            vec![Act::Answer(ReplyBody::Reversed(receipt(id()))), Act::HangUp],
            vec![Act::Answer(approved(id())), Act::HangUp],
            vec![Act::Answer(totals())],
        ]);
        let reversed = client.reverse(account, id()).unwrap();
        assert_eq!(reversed, Fate::Reversed(Lsn::new(LSN), receipt(id())));
        assert_eq!(client.advice(account, id(), amount()).unwrap(), the_approval());
        assert_eq!(client.totals().unwrap(), (Lsn::new(LSN), Vec::new()));
        let advice = format!("Advice {ACCOUNT} {} 2000", id());
        let reverse = format!("Reverse {ACCOUNT} {}", id());
        assert_eq!(
            bank.heard(),
            [reverse.as_str(), &advice, &advice, "Totals", "Totals"]
        );
    }

    #[test]
    fn an_approval_is_no_answer_to_a_reversal() {
        let (mut client, _) = client([vec![Act::Answer(approved(id()))]]);
        let result = client.reverse(AccountId::new(ACCOUNT).unwrap(), id());
        assert!(matches!(result, Err(ClientError::InDoubt { .. })), "{result:?}");
    }

    #[test]
    fn a_terminal_that_has_a_secret_proves_itself_with_it_on_every_connection() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        let mut file = std::fs::OpenOptions::new();
        let file = file.write(true).create_new(true).mode(0o600).open(&path);
        file.unwrap().write_all("0a".repeat(32).as_bytes()).unwrap();
        let bank = FakeBank::open([vec![Act::RefuseSilently], vec![Act::Answer(approved(id()))]]);
        let mut client = Client::new(ClientConfig {
            secret: Some(TerminalSecret::read(&path).unwrap()),
            ..ClientConfig::new(bank.address(), TerminalId::new("ATM-1").unwrap())
        });
        client.resolve(AccountId::new(ACCOUNT).unwrap(), id()).unwrap();
        let proof = format!("ATM-1 proves itself with {:?}", [10; 32]);
        assert_eq!(bank.heard()[..2], [proof.clone(), proof]);
    }

    #[test]
    fn ids_follow_the_banks_clock() {
        let (mut client, _) = client([vec![]]);
        client.connect().unwrap();
        let (first, second) = (client.new_txn_id(), client.new_txn_id());
        assert!(Timestamp::from(first) >= Timestamp::from_millis(SERVER_TIME) && second > first);
    }
}
