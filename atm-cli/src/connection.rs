//! One connection to the bank, on which requests are made and answered one at a time.
//!
//! Every method either gives what the bank said, or says what is known of the request: that nothing happened, or
//! that it is in doubt. Nothing is asked twice: that is what [`crate::client`] is for. A connection that has failed
//! is of no use any more.

use std::io;
use std::time::Instant;

use bank_core::limits::{MAX_REPLY_BYTES, MAX_UNASKED_READS, REPLY_DEADLINE};
use bank_core::protocol::{
    self, ErrorCode, FrameError, Greeting, Hello, MAGIC, NOTICE_ID, Proof, Receipt, Reply, ReplyBody,
    Request, RequestBody, Secret, VERSION, encode,
};
use bank_core::{
    AccountId, Amount, CardNumber, Currency, Lsn, Money, TerminalId, TerminalSecret, Timestamp, TxnId,
};
use zeroize::Zeroize;

use crate::notices::Notices;
use crate::tls::Privacy;
use crate::transport::{ConnectError, Transport};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The bank cannot be reached: nothing was asked.
    #[error("could not connect to {server}: {source}")]
    Unreachable {
        /// The address.
        server: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// It would not be private, or by TLS it turned out that the bank, or this terminal, is not who it says: nothing was
    /// asked.
    #[error("no private connection to {server}: {why}")]
    NotTrusted {
        /// The address.
        server: String,
        /// Whose certificate was not accepted, and why.
        why: String,
    },
    /// The connection was gone before the whole request was on its way: nothing was asked.
    #[error("the connection to the bank was gone before it could be asked: {0}")]
    NotSent(#[source] io::Error),
    /// The bank said no, and nothing happened.
    #[error("{message}")]
    Refused {
        /// An [`ErrorCode`], or one that this client does not know.
        code: u16,
        /// The reason, in a plain sentence; may hold control characters.
        message: String,
    },
    /// The account has forgotten ids as old as this: nothing was done, nor will be under it.
    #[error(
        "the transaction's id is too old: nothing was done, and a new id later than {newest} UTC will do"
    )]
    StaleId {
        /// The instant of the newest id that the account has forgotten.
        newest: Timestamp,
    },
    /// The connection broke before the answer came.
    #[error("the connection to the bank broke before it answered: {0}")]
    Lost(#[source] io::Error),
    /// What came is not the protocol.
    #[error("the bank's answer was not understood: {0}")]
    Frame(#[from] FrameError),
    /// The answer does not belong to the request.
    #[error("the bank answered something that was not asked")]
    Unexpected,
}

impl ConnectionError {
    /// Whether what was asked may have been carried out all the same.
    pub fn leaves_doubt(&self) -> bool {
        matches!(
            self,
            ConnectionError::Lost(_) | ConnectionError::Frame(_) | ConnectionError::Unexpected
        )
    }

    /// Whether a later try may fare better: the bank is away, or has too much to do.
    pub fn may_pass(&self) -> bool {
        match self {
            ConnectionError::Unreachable { .. } | ConnectionError::NotSent(_) | ConnectionError::Lost(_) => {
                true
            }
            ConnectionError::Refused { .. } => matches!(
                self.code(),
                Some(
                    ErrorCode::Busy
                        | ErrorCode::ShuttingDown
                        | ErrorCode::TooManyConnections
                        | ErrorCode::TimedOut
                        | ErrorCode::Disconnected
                )
            ),
            ConnectionError::NotTrusted { .. }
            | ConnectionError::StaleId { .. }
            | ConnectionError::Frame(_)
            | ConnectionError::Unexpected => false,
        }
    }

    /// The code that the bank gave, if it did and it is known.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            ConnectionError::Refused { code, .. } => ErrorCode::from_number(*code),
            _ => None,
        }
    }
}

/// The customer who is logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Customer {
    /// The account that the card opens.
    pub account: AccountId,
    /// Its currency.
    pub currency: Currency,
    /// Whom the card was issued to; may hold control characters.
    pub holder: String,
}

/// A balance, as of a journal row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balance {
    /// What the bank owes the customer.
    pub balance: Money,
    /// In which currency.
    pub currency: Currency,
    /// The row.
    pub lsn: Lsn,
}

/// What became of a transaction. Both are final.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Approved(Lsn, Receipt),
    /// A business rule forbids it.
    Declined {
        /// The decline's journal row.
        lsn: Lsn,
        /// What was not done.
        receipt: Receipt,
        /// An [`ErrorCode`] below 100, or one that this client does not know.
        code: u16,
        /// The reason, in a plain sentence; may hold control characters.
        message: String,
    },
}

/// What has become of an earlier transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was done.
    Applied(Lsn, Receipt),
    /// It was declined; or, to `reverse`, it cannot be undone. There is nothing to be undone, now or later.
    Declined {
        /// The decline's journal row.
        lsn: Lsn,
        /// What was not done.
        receipt: Receipt,
        /// An [`ErrorCode`] below 100, or one that this client does not know.
        code: u16,
        /// The reason, in a plain sentence; may hold control characters.
        message: String,
    },
    /// It was done and undone: the receipt is that of the undoing.
    Reversed(Lsn, Receipt),
    /// It was never done, nor will it be.
    Never,
}

/// How much cash has come into a terminal less what has gone out, per currency, as of a journal row.
pub type Totals = (Lsn, Vec<(Currency, Money)>);

/// One line of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatementLine {
    /// The journal row.
    pub lsn: Lsn,
    /// When it was decided.
    pub time: Timestamp,
    /// See the protocol's page: other kinds may be added.
    pub kind: u8,
    /// 0 if approved, else the code of the decline.
    pub outcome: u16,
    /// What it added to the account, or would have added.
    pub amount: Money,
    /// The account's balance afterwards.
    pub balance: Money,
    /// The other account, or negative for one of the bank's own.
    pub contra: i64,
    /// The terminal; empty if there was none.
    pub terminal: String,
    /// The transaction's id, if it had one.
    pub txn_id: Option<TxnId>,
}

/// The server's clock, as it was told.
#[derive(Clone, Copy, Debug)]
pub struct ServerTime {
    /// What the clock showed.
    pub time: Timestamp,
    /// When that was heard.
    pub heard: Instant,
}

/// A connection to the bank.
#[derive(Debug)]
pub struct Connection {
    transport: Transport,
    received: Vec<u8>,
    last_id: u32,
    deadline: Option<Instant>,
    open: bool,
    logged_in: bool,
    server_time: ServerTime,
    notices: Notices,
}

impl Connection {
    /// Connects to a server on this machine, and introduces a terminal that has no secret. Each answer is waited for as long as
    /// [`REPLY_DEADLINE`].
    ///
    /// # Errors
    /// As [`Connection::open`].
    pub fn connect(server: &str, terminal: TerminalId) -> Result<Connection, ConnectionError> {
        let deadline = Instant::now() + REPLY_DEADLINE;
        let mut connection = Connection::open(server, &Privacy::Loopback, terminal, None, deadline)?;
        connection.deadline = None;
        Ok(connection)
    }

    /// Connects, and introduces the terminal. The bank's greeting, and after it its answers, must come by the
    /// deadline.
    ///
    /// # Errors
    /// [`ConnectionError::Unreachable`], [`ConnectionError::NotTrusted`], or [`ConnectionError::Refused`] if the bank does
    /// not want to talk.
    pub fn open(
        server: &str,
        privacy: &Privacy,
        terminal: TerminalId,
        secret: Option<&TerminalSecret>,
        deadline: Instant,
    ) -> Result<Connection, ConnectionError> {
        let unreachable = |source| ConnectionError::Unreachable {
            server: server.to_owned(),
            source,
        };
        let not_trusted = |why| ConnectionError::NotTrusted {
            server: server.to_owned(),
            why,
        };
        let transport = Transport::connect(server, privacy, deadline).map_err(|error| match error {
            ConnectError::Unreachable(source) => unreachable(source),
            ConnectError::NotPrivate(why) => not_trusted(why),
        })?;
        let mut connection = Connection {
            transport,
            received: Vec::new(),
            last_id: NOTICE_ID,
            deadline: Some(deadline),
            open: true,
            logged_in: false,
            server_time: ServerTime {
                time: Timestamp::default(),
                heard: Instant::now(),
            },
            notices: Notices::default(),
        };
        let hello = Hello {
            magic: MAGIC,
            version: VERSION,
            terminal: terminal.as_str(),
            proof: secret.map_or(Proof::None, |secret| Proof::Secret(Secret(secret.as_bytes()))),
        };
        let mut frame = Vec::with_capacity(REQUEST_CAPACITY);
        encode(&hello, &mut frame);
        let written = connection.transport.write_all(&frame, deadline);
        frame.zeroize();
        // Even after a failed write a refusal may be waiting, and what came of a certificate is told only now.
        let body = connection.read_frame(deadline).map_err(|error| match error {
            ConnectionError::Lost(source) => {
                let why = match privacy {
                    Privacy::Tls(tls) => [Some(&source), written.as_ref().err()]
                        .into_iter()
                        .flatten()
                        .find_map(|error| tls.explain(error)),
                    Privacy::Loopback | Privacy::Nothing => None,
                };
                match why {
                    Some(why) => not_trusted(why),
                    None => unreachable(written.err().unwrap_or(source)),
                }
            }
            other => other,
        })?;
        match protocol::decode::<Greeting<'_>>(&body)? {
            Greeting::Welcome {
                version: VERSION,
                server_time,
                ..
            } => {
                connection.hear_time(server_time);
                Ok(connection)
            }
            Greeting::Welcome { .. } => Err(ConnectionError::Unexpected),
            Greeting::Refused {
                code,
                oldest_version,
                newest_version,
                message,
            } => Err(ConnectionError::Refused {
                code,
                message: if code == ErrorCode::UnsupportedVersion.number() {
                    other_versions(oldest_version, newest_version)
                } else {
                    message.to_owned()
                },
            }),
        }
    }

    /// By when the answers to further requests must come.
    pub fn answer_by(&mut self, deadline: Instant) {
        self.deadline = Some(deadline);
    }

    /// Whether further requests may be answered: until one has failed, or the bank has said that it hangs up.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Whether a customer has logged in here, and has not left since.
    pub fn is_logged_in(&self) -> bool {
        self.logged_in
    }

    /// The server's clock, as it was told last.
    pub fn server_time(&self) -> ServerTime {
        self.server_time
    }

    /// Takes in what the bank has said of its own accord, without waiting. Gives whether it is still there to be asked: if
    /// it has hung up, or said that it does, a request would not be read any more, and it is known that nothing was asked.
    pub fn listen(&mut self) -> bool {
        let mut chunk = [0; 4096];
        for _ in 0..MAX_UNASKED_READS {
            match self.transport.read_without_waiting(&mut chunk) {
                Ok(bytes @ 1..) => self.received.extend_from_slice(&chunk[..bytes]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // What has come in part is a notice's beginning, or its end is found when the answer is waited for.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return self.put_notices_aside(),
                Ok(0) | Err(_) => {
                    self.put_notices_aside();
                    return false;
                }
            }
            if !self.put_notices_aside() {
                return false;
            }
        }
        false
    }

    /// What the bank's operators have had said on this connection that was not given yet, the oldest first. Only the newest are
    /// kept; nothing in them can drive a screen.
    pub fn notices(&mut self) -> Vec<String> {
        self.notices.take()
    }

    pub(crate) fn unread_notices(&mut self) -> &mut Notices {
        &mut self.notices
    }

    /// Asks whether the bank is there, and for the time.
    ///
    /// # Errors
    /// [`ConnectionError`].
    pub fn ping(&mut self) -> Result<(), ConnectionError> {
        let server_time = self.call(RequestBody::Ping, |_, body| match body {
            ReplyBody::Pong { server_time } => Some(server_time),
            _ => None,
        })?;
        self.hear_time(server_time);
        Ok(())
    }

    /// Shows a card and its PIN.
    ///
    /// # Errors
    /// [`ConnectionError::Refused`] with [`ErrorCode::LoginRefused`] if they are not accepted.
    pub fn login(&mut self, card: &CardNumber, pin: &str) -> Result<Customer, ConnectionError> {
        let customer = self.call(
            RequestBody::Login {
                card: card.as_str(),
                pin: Secret(pin),
            },
            |_, body| match body {
                ReplyBody::LoggedIn {
                    account,
                    currency,
                    holder,
                } => Some(Customer {
                    account: AccountId::new(account).ok()?,
                    currency: from_wire(currency)?,
                    holder: holder.to_owned(),
                }),
                _ => None,
            },
        )?;
        self.logged_in = true;
        Ok(customer)
    }

    /// Ends the customer's session.
    ///
    /// # Errors
    /// [`ConnectionError`].
    pub fn logout(&mut self) -> Result<(), ConnectionError> {
        self.call(RequestBody::Logout, |_, body| {
            matches!(body, ReplyBody::LoggedOut).then_some(())
        })?;
        self.logged_in = false;
        Ok(())
    }

    /// The balance of the customer's account.
    ///
    /// # Errors
    /// [`ConnectionError`].
    pub fn balance(&mut self) -> Result<Balance, ConnectionError> {
        self.call(RequestBody::Balance, |lsn, body| match body {
            ReplyBody::Balance { balance, currency } => Some(Balance {
                balance: Money::from_minor(balance),
                currency: from_wire(currency)?,
                lsn,
            }),
            _ => None,
        })
    }

    /// Deposits an amount.
    ///
    /// # Errors
    /// [`ConnectionError`]; see [`ConnectionError::leaves_doubt`].
    pub fn deposit(&mut self, txn_id: TxnId, amount: Amount) -> Result<Outcome, ConnectionError> {
        self.transact(RequestBody::Deposit {
            txn_id: txn_id.to_bytes(),
            amount: amount.minor(),
        })
    }

    /// Withdraws an amount.
    ///
    /// # Errors
    /// [`ConnectionError`]; see [`ConnectionError::leaves_doubt`].
    pub fn withdraw(&mut self, txn_id: TxnId, amount: Amount) -> Result<Outcome, ConnectionError> {
        self.transact(RequestBody::Withdraw {
            txn_id: txn_id.to_bytes(),
            amount: amount.minor(),
        })
    }

    /// Transfers an amount to another account.
    ///
    /// # Errors
    /// [`ConnectionError`]; see [`ConnectionError::leaves_doubt`].
    pub fn transfer(
        &mut self,
        txn_id: TxnId,
        to: AccountId,
        amount: Amount,
    ) -> Result<Outcome, ConnectionError> {
        self.transact(RequestBody::Transfer {
            txn_id: txn_id.to_bytes(),
            to: to.get(),
            amount: amount.minor(),
        })
    }

    /// Gives the customer's card a new PIN.
    ///
    /// # Errors
    /// [`ConnectionError::Refused`] with [`ErrorCode::LoginRefused`] if `old` is not the PIN so far.
    pub fn change_pin(&mut self, old: &str, new: &str) -> Result<(), ConnectionError> {
        let request = RequestBody::ChangePin {
            old: Secret(old),
            new: Secret(new),
        };
        self.call(request, |_, body| {
            matches!(body, ReplyBody::PinChanged).then_some(())
        })
    }

    /// The account's newest rows, at most `lines` of them, the newest first, and the balance that they lead to.
    ///
    /// # Errors
    /// [`ConnectionError`].
    pub fn statement(&mut self, lines: u16) -> Result<(Balance, Vec<StatementLine>), ConnectionError> {
        self.call(RequestBody::Statement { lines }, |lsn, body| match body {
            ReplyBody::Statement {
                balance,
                currency,
                lines,
            } => {
                let balance = Balance {
                    balance: Money::from_minor(balance),
                    currency: from_wire(currency)?,
                    lsn,
                };
                Some((
                    balance,
                    lines.into_iter().map(line_from_wire).collect::<Option<_>>()?,
                ))
            }
            _ => None,
        })
    }

    /// Undoes a transaction of this terminal; one that the bank does not know is never done thereafter.
    ///
    /// # Errors
    /// [`ConnectionError`]; asking again does no harm.
    pub fn reverse(&mut self, account: AccountId, txn_id: TxnId) -> Result<Fate, ConnectionError> {
        let request = RequestBody::Reverse {
            account: account.get(),
            txn_id: txn_id.to_bytes(),
        };
        self.call(request, |lsn, body| {
            fate(lsn, &body).filter(|fate| !matches!(fate, Fate::Applied(..)))
        })
    }

    /// Asks what became of a transaction of this terminal; one that the bank does not know is never done thereafter.
    ///
    /// # Errors
    /// [`ConnectionError`]; asking again does no harm.
    pub fn resolve(&mut self, account: AccountId, txn_id: TxnId) -> Result<Fate, ConnectionError> {
        let request = RequestBody::Resolve {
            account: account.get(),
            txn_id: txn_id.to_bytes(),
        };
        self.call(request, |lsn, body| fate(lsn, &body))
    }

    /// Credits notes that this terminal has taken, under the id of the deposit that got no answer.
    ///
    /// # Errors
    /// [`ConnectionError`]; asking again does no harm.
    pub fn advice(
        &mut self,
        account: AccountId,
        txn_id: TxnId,
        amount: Amount,
    ) -> Result<Outcome, ConnectionError> {
        self.transact(RequestBody::Advice {
            account: account.get(),
            txn_id: txn_id.to_bytes(),
            amount: amount.minor(),
        })
    }

    /// How much cash came into this terminal less what went out, since the bank has known it.
    ///
    /// # Errors
    /// [`ConnectionError`].
    pub fn totals(&mut self) -> Result<Totals, ConnectionError> {
        self.call(RequestBody::Totals, |lsn, body| match body {
            ReplyBody::Totals(totals) => {
                let totals = totals
                    .into_iter()
                    .map(|total| Some((from_wire(total.currency)?, Money::from_minor(total.cash))));
                Some((lsn, totals.collect::<Option<_>>()?))
            }
            _ => None,
        })
    }

    fn transact(&mut self, request: RequestBody<'_>) -> Result<Outcome, ConnectionError> {
        self.call(request, |lsn, body| match body {
            ReplyBody::StaleId { newest } => Some(Err(ConnectionError::StaleId {
                newest: Timestamp::from_millis(newest),
            })),
            body => outcome(lsn, &body).map(Ok),
        })?
    }

    /// Makes a request and waits for its reply, of which `take` makes an answer if it is one.
    fn call<R>(
        &mut self,
        body: RequestBody<'_>,
        take: impl FnOnce(Lsn, ReplyBody<'_>) -> Option<R>,
    ) -> Result<R, ConnectionError> {
        // Whatever comes after a failure might be the answer to something else.
        if !std::mem::replace(&mut self.open, false) {
            return Err(ConnectionError::NotSent(io::ErrorKind::NotConnected.into()));
        }
        self.last_id = self.last_id.checked_add(1).unwrap_or(NOTICE_ID + 1);
        let deadline = self.deadline.unwrap_or_else(|| Instant::now() + REPLY_DEADLINE);
        let mut frame = Vec::with_capacity(REQUEST_CAPACITY);
        encode(
            &Request {
                id: self.last_id,
                body,
            },
            &mut frame,
        );
        let written = if self.listen() {
            self.transport.write_all(&frame, deadline)
        } else {
            Err(io::ErrorKind::BrokenPipe.into())
        };
        frame.zeroize();
        // Even when the request was not written, an error may be waiting that says why the bank hung up.
        let body = match (self.read_reply(deadline), written) {
            // A part of a frame is nothing that the bank could carry out.
            (Err(ConnectionError::Lost(_)), Err(error)) => return Err(ConnectionError::NotSent(error)),
            (read, _) => read?,
        };
        let reply: Reply<'_> = protocol::decode(&body)?;
        match reply.body {
            // An error of the bank's own accord comes in place of the reply: requests are answered in order, so this one was
            // not executed, nor will it be.
            ReplyBody::Error { code, message } if reply.id == self.last_id || reply.id == NOTICE_ID => {
                self.open = reply.id == self.last_id;
                let error = ConnectionError::Refused {
                    code,
                    message: message.to_owned(),
                };
                if matches!(
                    error.code(),
                    Some(ErrorCode::SessionEnded | ErrorCode::NotLoggedIn)
                ) {
                    self.logged_in = false;
                }
                Err(error)
            }
            body if reply.id == self.last_id => {
                let answer = take(Lsn::new(reply.lsn), body).ok_or(ConnectionError::Unexpected)?;
                self.open = true;
                Ok(answer)
            }
            _ => Err(ConnectionError::Unexpected),
        }
    }

    /// Waits for what is no notice, and gives its body.
    fn read_reply(&mut self, deadline: Instant) -> Result<Vec<u8>, ConnectionError> {
        loop {
            let body = self.read_frame(deadline)?;
            match notice(&body) {
                Some(message) => self.notices.hear(message),
                None => return Ok(body),
            }
        }
    }

    /// Puts aside the notices that have come whole. Gives whether nothing else has.
    fn put_notices_aside(&mut self) -> bool {
        loop {
            let Ok(next) = protocol::split(&self.received, MAX_REPLY_BYTES) else {
                return false;
            };
            let Some((body, used)) = next else {
                return true;
            };
            let Some(message) = notice(body) else {
                return false;
            };
            self.notices.hear(message);
            self.received.drain(..used);
        }
    }

    /// Waits for a whole frame and gives its body.
    fn read_frame(&mut self, deadline: Instant) -> Result<Vec<u8>, ConnectionError> {
        let mut chunk = [0; 4096];
        loop {
            if let Some((body, used)) = protocol::split(&self.received, MAX_REPLY_BYTES)? {
                let body = body.to_vec();
                self.received.drain(..used);
                return Ok(body);
            }
            match self.transport.read(&mut chunk, deadline) {
                Ok(0) => return Err(ConnectionError::Lost(io::ErrorKind::UnexpectedEof.into())),
                Ok(bytes) => self.received.extend_from_slice(&chunk[..bytes]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ConnectionError::Lost(error)),
            }
        }
    }

    fn hear_time(&mut self, millis: i64) {
        self.server_time = ServerTime {
            time: Timestamp::from_millis(millis),
            heard: Instant::now(),
        };
    }
}

/// Bytes that a request's frame never outgrows, lest a secret should be left behind in memory that it outgrew.
const REQUEST_CAPACITY: usize = 256;

/// What a frame's body says, if it is a notice.
fn notice(body: &[u8]) -> Option<&str> {
    match protocol::decode(body) {
        Ok(Reply {
            id: NOTICE_ID,
            body: ReplyBody::Notice { message },
            ..
        }) => Some(message),
        _ => None,
    }
}

/// That the bank speaks other versions of the protocol, and what to do about it.
fn other_versions(oldest: u16, newest: u16) -> String {
    let theirs = if oldest == newest {
        format!("version {oldest}")
    } else {
        format!("versions {oldest} to {newest}")
    };
    let older = if oldest > VERSION { "terminal" } else { "bank" };
    format!(
        "this terminal speaks version {VERSION} of the protocol, the bank {theirs}: the {older}'s program must be brought up to date"
    )
}

fn outcome(lsn: Lsn, body: &ReplyBody<'_>) -> Option<Outcome> {
    match *body {
        ReplyBody::Approved(receipt) => Some(Outcome::Approved(lsn, receipt)),
        ReplyBody::Declined {
            code,
            receipt,
            message,
        } => Some(Outcome::Declined {
            lsn,
            receipt,
            code,
            message: message.to_owned(),
        }),
        _ => None,
    }
}

fn fate(lsn: Lsn, body: &ReplyBody<'_>) -> Option<Fate> {
    match *body {
        ReplyBody::Approved(receipt) => Some(Fate::Applied(lsn, receipt)),
        ReplyBody::Declined {
            code,
            receipt,
            message,
        } => Some(Fate::Declined {
            lsn,
            receipt,
            code,
            message: message.to_owned(),
        }),
        ReplyBody::Reversed(receipt) => Some(Fate::Reversed(lsn, receipt)),
        ReplyBody::Never => Some(Fate::Never),
        _ => None,
    }
}

fn from_wire(currency: [u8; 3]) -> Option<Currency> {
    Currency::from_code(str::from_utf8(&currency).ok()?).ok()
}

fn line_from_wire(line: protocol::StatementLine<'_>) -> Option<StatementLine> {
    Some(StatementLine {
        lsn: Lsn::new(line.lsn),
        time: Timestamp::from_millis(line.time),
        kind: line.kind,
        outcome: line.outcome,
        amount: Money::from_minor(line.amount),
        balance: Money::from_minor(line.balance),
        contra: line.contra,
        terminal: line.terminal.to_owned(),
        txn_id: line.txn_id.map(TxnId::from_bytes).transpose().ok()?,
    })
}
