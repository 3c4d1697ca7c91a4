//! A client that keeps a record: what it asked, when, and what it was told, when.
//!
//! It speaks the protocol by itself, since it sends several requests before it waits, and hangs up in the middle of
//! them on purpose. What it has not been told then it asks again under the same id until it is. A request that the bank
//! refused without doing anything (it was busy, or the id was overtaken by too many others) leaves no record but a count.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use bank_core::TxnId;
use bank_core::limits::MAX_REPLY_BYTES;
use bank_core::protocol::{
    ErrorCode, FrameError, Greeting, Hello, MAGIC, NOTICE_ID, Proof, Reply, ReplyBody, Request, RequestBody,
    Secret, VERSION, decode, encode, split,
};

use super::history::{Answer, Ask, Call, Sent};

/// How long a server may be away or silent.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two tries to reach it.
const PAUSE: Duration = Duration::from_millis(20);

/// Where the server listens now. One that is killed comes back elsewhere.
pub(super) type Address = RwLock<String>;

/// Why the check could not be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    /// The server is gone.
    #[error("the server at {address} has been away for {} s: {source}", PATIENCE.as_secs())]
    Away {
        /// Where it was looked for.
        address: String,
        /// What happened last.
        source: io::Error,
    },
    /// The server refused something.
    #[error(
        "{doing}: {message} (the check needs a bank of \"atm-server generate\" with at least --accounts accounts)"
    )]
    Refused {
        /// What was being done.
        doing: &'static str,
        /// What the server said.
        message: String,
    },
    /// The server does not speak the protocol.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// An answer was not one to what was asked.
    #[error("the server answered something that was not asked: {0}")]
    Unexpected(String),
}

/// A client with the card of one account.
pub(super) struct Client {
    number: usize,
    /// The account that its card opens.
    pub(super) account: u64,
    /// What it was told since they were taken from here.
    pub(super) calls: Vec<Call>,
    /// Requests of which nothing came.
    pub(super) refused: u64,
    /// What it does not know the end of, with its id.
    doubts: Vec<(Sent, TxnId)>,
    address: Arc<Address>,
    /// When the clock of all clients began.
    began: Instant,
    line: Option<Line>,
}

/// What one reply says of a call.
enum Heard {
    Answer(u64, Answer),
    /// Nothing was done by this request. Whether that is so for ever under its id.
    Nothing {
        for_ever: bool,
    },
}

impl Client {
    pub(super) fn new(number: usize, account: u64, address: Arc<Address>, began: Instant) -> Client {
        Client {
            number,
            account,
            calls: Vec::new(),
            refused: 0,
            doubts: Vec::new(),
            address,
            began,
            line: None,
        }
    }

    /// Sends all of it and waits for the answers, or hangs up once it is sent. What is not answered is in doubt.
    pub(super) fn ask(&mut self, asks: &[Ask], hang_up: bool) -> Result<(), ClientError> {
        let mut line = self.connected()?;
        let ids: Vec<TxnId> = asks.iter().map(|_| TxnId::generate()).collect();
        let mut frames = Vec::new();
        for (n, (&ask, id)) in asks.iter().zip(&ids).enumerate() {
            encode(&request(n, ask, *id), &mut frames);
        }
        let asked = self.now();
        let sent: Vec<Sent> = asks
            .iter()
            .map(|&ask| Sent {
                client: self.number,
                account: self.account,
                ask,
                asked,
            })
            .collect();
        let mut open = line.write(&frames).is_ok() && !hang_up;
        for (n, (&sent, &id)) in sent.iter().zip(&ids).enumerate() {
            // Nothing that comes after a failure can be told from the answer to something else.
            let heard = if open { line.hear(n, sent.ask, id)? } else { None };
            match heard {
                Some(Heard::Answer(lsn, answer)) => {
                    let now = self.now();
                    self.calls.push(sent.answered(now, lsn, answer));
                }
                Some(Heard::Nothing { .. }) => self.refused += 1,
                None => {
                    open = false;
                    // A balance that nobody was told did nothing.
                    if sent.ask != Ask::Balance {
                        self.doubts.push((sent, id));
                    }
                }
            }
        }
        self.line = open.then_some(line);
        Ok(())
    }

    /// Asks again for all that is in doubt, until there is none.
    pub(super) fn settle(&mut self) -> Result<(), ClientError> {
        while let Some(&(sent, id)) = self.doubts.first() {
            let mut line = self.connected()?;
            let mut frame = Vec::new();
            encode(&request(0, sent.ask, id), &mut frame);
            let heard = match line.write(&frame) {
                Ok(()) => line.hear(0, sent.ask, id)?,
                Err(_) => None,
            };
            if heard.is_some() {
                self.line = Some(line);
            }
            match heard {
                Some(Heard::Answer(lsn, answer)) => {
                    let call = sent.answered(self.now(), lsn, answer);
                    self.calls.push(Call {
                        in_doubt: true,
                        ..call
                    });
                    self.doubts.remove(0);
                }
                Some(Heard::Nothing { for_ever: true }) => {
                    self.refused += 1;
                    self.doubts.remove(0);
                }
                // This try did nothing, the first may have.
                Some(Heard::Nothing { for_ever: false }) | None => pause(),
            }
        }
        Ok(())
    }

    /// Asks for the balance until it is told.
    pub(super) fn balance(&mut self) -> Result<Call, ClientError> {
        loop {
            self.ask(&[Ask::Balance], false)?;
            match self.calls.pop() {
                Some(call) => return Ok(call),
                None => pause(),
            }
        }
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    fn connected(&mut self) -> Result<Line, ClientError> {
        if let Some(line) = self.line.take() {
            return Ok(line);
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let address = self.address.read().expect("no holder panics").clone();
            match Line::open(&address, self.account)? {
                Ok(line) => return Ok(line),
                Err(source) if Instant::now() > deadline => {
                    return Err(ClientError::Away { address, source });
                }
                Err(_) => pause(),
            }
        }
    }
}

/// A connection with a customer logged in.
struct Line {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Line {
    /// Connects and logs in. The inner error may pass.
    fn open(address: &str, account: u64) -> Result<io::Result<Line>, ClientError> {
        let stream = TcpStream::connect(address).and_then(|stream| {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            Ok(stream)
        });
        let mut line = match stream {
            Ok(stream) => Line {
                stream,
                received: Vec::new(),
            },
            Err(error) => return Ok(Err(error)),
        };
        let mut frames = Vec::new();
        let hello = Hello {
            magic: MAGIC,
            version: VERSION,
            terminal: "CHECK",
            proof: Proof::None,
        };
        encode(&hello, &mut frames);
        let (card, pin) = (account.to_string(), format!("{:04}", account % 10_000));
        let body = RequestBody::Login {
            card: &card,
            pin: Secret(&pin),
        };
        encode(&Request { id: 1, body }, &mut frames);
        let greeted = line.write(&frames).and_then(|()| {
            line.frame(|body| {
                Ok(match decode(body)? {
                    Greeting::Welcome { .. } => Ok(()),
                    Greeting::Refused { message, .. } => Err(message.to_owned()),
                })
            })
        });
        match greeted {
            Ok(greeted) => greeted?.map_err(|message| ClientError::Refused {
                doing: "connecting",
                message,
            })?,
            Err(error) => return Ok(Err(error)),
        }
        let logged_in = line.frame(|body| {
            Ok(match decode::<Reply<'_>>(body)?.body {
                ReplyBody::LoggedIn { .. } => Ok(true),
                ReplyBody::Error { code, .. } if may_pass(code) => Ok(false),
                ReplyBody::Error { message, .. } => Err(ClientError::Refused {
                    doing: "logging in",
                    message: message.to_owned(),
                }),
                other => Err(ClientError::Unexpected(format!("{other:?}"))),
            })
        });
        Ok(match logged_in {
            Ok(logged_in) => {
                if logged_in?? {
                    Ok(line)
                } else {
                    Err(io::ErrorKind::ConnectionRefused.into())
                }
            }
            Err(error) => Err(error),
        })
    }

    fn write(&mut self, frames: &[u8]) -> io::Result<()> {
        self.stream.write_all(frames)
    }

    /// Waits for the reply to request `n`; `None` if the connection breaks before.
    fn hear(&mut self, n: usize, ask: Ask, id: TxnId) -> Result<Option<Heard>, ClientError> {
        let heard = self.frame(|body| {
            let reply: Reply<'_> = decode(body)?;
            // A notice says that the bank hangs up, and why.
            Ok((reply.id != NOTICE_ID).then(|| heard(&reply, n, ask, id)))
        });
        heard.map_or(Ok(None), |heard| heard?.transpose())
    }

    /// Waits for a frame and gives what `read` makes of its body. The outer error may pass.
    fn frame<R>(
        &mut self,
        read: impl FnOnce(&[u8]) -> Result<R, FrameError>,
    ) -> io::Result<Result<R, FrameError>> {
        let mut chunk = [0; 4096];
        loop {
            match split(&self.received, MAX_REPLY_BYTES) {
                Ok(Some((body, used))) => {
                    let read = read(body);
                    self.received.drain(..used);
                    return Ok(read);
                }
                Ok(None) => {}
                Err(error) => return Ok(Err(error)),
            }
            match self.stream.read(&mut chunk)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                bytes => self.received.extend_from_slice(&chunk[..bytes]),
            }
        }
    }
}

fn request(n: usize, ask: Ask, id: TxnId) -> Request<'static> {
    let txn_id = id.to_bytes();
    let body = match ask {
        Ask::Balance => RequestBody::Balance,
        Ask::Deposit(amount) => RequestBody::Deposit { txn_id, amount },
        Ask::Withdraw(amount) => RequestBody::Withdraw { txn_id, amount },
        Ask::Transfer { to, amount } => RequestBody::Transfer { txn_id, to, amount },
    };
    Request {
        id: request_id(n),
        body,
    }
}

fn request_id(n: usize) -> u32 {
    NOTICE_ID + 1 + n as u32
}

fn heard(reply: &Reply<'_>, n: usize, ask: Ask, id: TxnId) -> Result<Heard, ClientError> {
    let unexpected = || ClientError::Unexpected(format!("{reply:?} to {ask:?} with id {id}"));
    if reply.id != request_id(n) {
        return Err(unexpected());
    }
    let is_read = ask == Ask::Balance;
    let answer = match &reply.body {
        ReplyBody::Balance { balance, .. } if is_read => Answer::Balance(*balance),
        ReplyBody::Approved(receipt) if !is_read && receipt.txn_id == id.to_bytes() => Answer::Approved {
            amount: receipt.amount,
            balance: receipt.balance,
        },
        ReplyBody::Declined { code, receipt, .. } if !is_read && receipt.txn_id == id.to_bytes() => {
            Answer::Declined {
                code: *code,
                amount: receipt.amount,
                balance: receipt.balance,
            }
        }
        ReplyBody::StaleId { .. } if !is_read => return Ok(Heard::Nothing { for_ever: true }),
        ReplyBody::Error { code, .. } if may_pass(*code) => return Ok(Heard::Nothing { for_ever: false }),
        ReplyBody::Error { message, .. } => {
            return Err(ClientError::Refused {
                doing: "asking",
                message: (*message).to_owned(),
            });
        }
        _ => return Err(unexpected()),
    };
    Ok(Heard::Answer(reply.lsn, answer))
}

/// Whether a bank that says this had only too much to do, or is about to stop.
fn may_pass(code: u16) -> bool {
    matches!(
        ErrorCode::from_number(code),
        Some(ErrorCode::Busy | ErrorCode::ShuttingDown | ErrorCode::TooManyConnections | ErrorCode::TimedOut)
    )
}

/// A server that is away tells nobody when it is back.
#[allow(clippy::disallowed_methods)]
fn pause() {
    thread::sleep(PAUSE);
}
