//! The client: one connection to the bank, on which requests are made and answered one at a time.
//!
//! Every method either gives what the bank said, or says what is known of the request: that nothing happened, or
//! that it is in doubt. A connection that has failed is not used again.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Instant;

use bank_core::limits::{CONNECT_DEADLINE, MAX_REPLY_BYTES, REPLY_DEADLINE, WRITE_DEADLINE};
use bank_core::protocol::{
    self, ErrorCode, FrameError, Greeting, Hello, MAGIC, NOTICE_ID, Proof, Receipt, Reply, ReplyBody,
    Request, RequestBody, Secret, VERSION, encode,
};
use bank_core::{AccountId, Amount, CardNumber, Currency, Lsn, Money, TerminalId, Timestamp, TxnId};
use zeroize::Zeroize;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The bank cannot be reached: nothing was asked.
    #[error("could not connect to {server}: {source}")]
    Unreachable {
        /// The address.
        server: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The bank said no, and nothing happened.
    #[error("{message}")]
    Refused {
        /// An [`ErrorCode`], or one that this client does not know.
        code: u16,
        /// The reason, in a plain sentence.
        message: String,
    },
    /// The connection broke before the answer came.
    #[error("the connection to the bank broke before it answered: {0}")]
    Lost(io::Error),
    /// What came is not the protocol.
    #[error("the bank's answer was not understood: {0}")]
    Frame(#[from] FrameError),
    /// The answer does not belong to the request.
    #[error("the bank answered something that was not asked")]
    Unexpected,
}

impl ClientError {
    /// Whether the request may have been carried out all the same.
    pub fn leaves_doubt(&self) -> bool {
        matches!(
            self,
            ClientError::Lost(_) | ClientError::Frame(_) | ClientError::Unexpected
        )
    }

    /// The code that the bank gave, if it did and it is known.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            ClientError::Refused { code, .. } => ErrorCode::from_number(*code),
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

/// A connection to the bank.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    received: Vec<u8>,
    last_id: u32,
}

impl Client {
    /// Connects, and introduces the terminal.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`], or [`ClientError::Refused`] if the bank does not want to talk.
    pub fn connect(server: &str, terminal: TerminalId) -> Result<Client, ClientError> {
        let unreachable = |source| ClientError::Unreachable {
            server: server.to_owned(),
            source,
        };
        let stream = connect_to_any(server).map_err(unreachable)?;
        let mut client = Client {
            stream,
            received: Vec::new(),
            last_id: NOTICE_ID,
        };
        let hello = Hello {
            magic: MAGIC,
            version: VERSION,
            terminal: terminal.as_str(),
            proof: Proof::None,
        };
        let mut frame = Vec::new();
        encode(&hello, &mut frame);
        client
            .stream
            .set_nodelay(true)
            .and_then(|()| client.stream.write_all(&frame))
            .map_err(unreachable)?;
        let body = client.read_frame().map_err(|error| match error {
            ClientError::Lost(source) => unreachable(source),
            other => other,
        })?;
        match protocol::decode::<Greeting<'_>>(&body)? {
            Greeting::Welcome { version: VERSION, .. } => Ok(client),
            Greeting::Welcome { .. } => Err(ClientError::Unexpected),
            Greeting::Refused { code, message, .. } => Err(ClientError::Refused {
                code,
                message: message.to_owned(),
            }),
        }
    }

    /// Shows a card and its PIN.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with [`ErrorCode::LoginRefused`] if they are not accepted.
    pub fn login(&mut self, card: &CardNumber, pin: &str) -> Result<Customer, ClientError> {
        self.call(
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
        )
    }

    /// Ends the customer's session.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn logout(&mut self) -> Result<(), ClientError> {
        self.call(RequestBody::Logout, |_, body| {
            matches!(body, ReplyBody::LoggedOut).then_some(())
        })
    }

    /// The balance of the customer's account.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn balance(&mut self) -> Result<Balance, ClientError> {
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
    /// [`ClientError`]; see [`ClientError::leaves_doubt`].
    pub fn deposit(&mut self, txn_id: TxnId, amount: Amount) -> Result<Outcome, ClientError> {
        self.transact(RequestBody::Deposit {
            txn_id: txn_id.to_bytes(),
            amount: amount.minor(),
        })
    }

    /// Withdraws an amount.
    ///
    /// # Errors
    /// [`ClientError`]; see [`ClientError::leaves_doubt`].
    pub fn withdraw(&mut self, txn_id: TxnId, amount: Amount) -> Result<Outcome, ClientError> {
        self.transact(RequestBody::Withdraw {
            txn_id: txn_id.to_bytes(),
            amount: amount.minor(),
        })
    }

    /// Transfers an amount to another account.
    ///
    /// # Errors
    /// [`ClientError`]; see [`ClientError::leaves_doubt`].
    pub fn transfer(&mut self, txn_id: TxnId, to: AccountId, amount: Amount) -> Result<Outcome, ClientError> {
        self.transact(RequestBody::Transfer {
            txn_id: txn_id.to_bytes(),
            to: to.get(),
            amount: amount.minor(),
        })
    }

    /// Gives the customer's card a new PIN.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with [`ErrorCode::LoginRefused`] if `old` is not the PIN so far.
    pub fn change_pin(&mut self, old: &str, new: &str) -> Result<(), ClientError> {
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
    /// [`ClientError`].
    pub fn statement(&mut self, lines: u16) -> Result<(Balance, Vec<StatementLine>), ClientError> {
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

    fn transact(&mut self, request: RequestBody<'_>) -> Result<Outcome, ClientError> {
        self.call(request, |lsn, body| match body {
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
        })
    }

    /// Makes a request and waits for its reply, of which `take` makes an answer if it is one.
    fn call<R>(
        &mut self,
        body: RequestBody<'_>,
        take: impl FnOnce(Lsn, ReplyBody<'_>) -> Option<R>,
    ) -> Result<R, ClientError> {
        self.last_id = self.last_id.checked_add(1).unwrap_or(NOTICE_ID + 1);
        let mut frame = Vec::with_capacity(256);
        encode(
            &Request {
                id: self.last_id,
                body,
            },
            &mut frame,
        );
        let written = self.stream.write_all(&frame);
        frame.zeroize();
        // Even after a failed write a reply may be waiting that says why the bank hung up.
        let body = match self.read_frame() {
            Err(ClientError::Lost(error)) => return Err(ClientError::Lost(written.err().unwrap_or(error))),
            other => other?,
        };
        let reply: Reply<'_> = protocol::decode(&body)?;
        match reply.body {
            // An error of the connection's comes in place of the reply: requests are answered in order, so this one
            // was not executed, nor will it be.
            ReplyBody::Error { code, message } if reply.id == self.last_id || reply.id == NOTICE_ID => {
                Err(ClientError::Refused {
                    code,
                    message: message.to_owned(),
                })
            }
            body if reply.id == self.last_id => {
                take(Lsn::new(reply.lsn), body).ok_or(ClientError::Unexpected)
            }
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Waits for a whole frame and gives its body.
    fn read_frame(&mut self) -> Result<Vec<u8>, ClientError> {
        let deadline = Instant::now() + REPLY_DEADLINE;
        let mut chunk = [0; 4096];
        loop {
            if let Some((body, used)) = protocol::split(&self.received, MAX_REPLY_BYTES)? {
                let body = body.to_vec();
                self.received.drain(..used);
                return Ok(body);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ClientError::Lost(io::ErrorKind::TimedOut.into()));
            }
            self.stream
                .set_read_timeout(Some(left))
                .map_err(ClientError::Lost)?;
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(ClientError::Lost(io::ErrorKind::UnexpectedEof.into())),
                Ok(bytes) => self.received.extend_from_slice(&chunk[..bytes]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(ClientError::Lost(io::ErrorKind::TimedOut.into()));
                }
                Err(error) => return Err(ClientError::Lost(error)),
            }
        }
    }
}

fn connect_to_any(server: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in server.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_DEADLINE) {
            Ok(stream) => {
                stream.set_write_timeout(Some(WRITE_DEADLINE))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
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
