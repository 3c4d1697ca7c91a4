//! For tests: a bank that answers as it was told to, and remembers what it heard.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use bank_core::TxnId;
use bank_core::limits::{MAX_REPLY_BYTES, MAX_REQUEST_BYTES};
use bank_core::protocol::{
    ErrorCode, Greeting, Hello, NOTICE_ID, Proof, Receipt, Reply, ReplyBody, Request, RequestBody, Secret,
    VERSION, decode, encode, split,
};

/// What the bank's clock shows: 2100-01-01.
pub(crate) const SERVER_TIME: i64 = 4_102_444_800_000;

/// The account of its only customer.
pub(crate) const ACCOUNT: u64 = 1001;

/// The row of all its replies.
pub(crate) const LSN: u64 = 300;

/// What the bank does on a connection, one after the other. After the last it hangs up.
pub(crate) enum Act {
    /// Answers the hello with a refusal, and hangs up.
    Refuse(ErrorCode),
    /// Answers the hello as a bank that speaks these versions.
    RefuseVersion(u16, u16),
    /// Hears the hello, and hangs up.
    RefuseSilently,
    /// Accepts this and all further connections, and says nothing.
    GreetNobody,
    /// Reads a request and answers it.
    Answer(ReplyBody<'static>),
    /// Reads a request and answers it, and gives notice of something in the same breath.
    AnswerAndTell(ReplyBody<'static>, &'static str),
    /// Gives notice of something.
    Tell(&'static str),
    /// Says something of its own accord, and hangs up.
    Notice(ErrorCode),
    /// Reads a request, and hangs up.
    HangUp,
    /// Reads a request, and says nothing as long as the test lasts.
    Silence,
}

/// A bank that follows a script, and is gone after it.
pub(crate) struct FakeBank {
    address: String,
    record: Arc<Mutex<Record>>,
}

#[derive(Default)]
struct Record {
    heard: Vec<String>,
    connections: usize,
    /// Connections on which nothing is said; they are open as long as the record is.
    silent: Vec<TcpStream>,
}

impl FakeBank {
    /// Serves as many connections as the script has entries.
    pub(crate) fn open(script: impl IntoIterator<Item = Vec<Act>>) -> FakeBank {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let bank = FakeBank {
            address: listener.local_addr().unwrap().to_string(),
            record: Arc::default(),
        };
        let (script, record) = (script.into_iter().collect::<Vec<_>>(), Arc::clone(&bank.record));
        if !script.is_empty() {
            thread::spawn(move || serve(&listener, script, &record));
        }
        bank
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The requests so far, in words.
    pub(crate) fn heard(&self) -> Vec<String> {
        self.record.lock().unwrap().heard.clone()
    }

    /// How many connections were accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.record.lock().unwrap().connections
    }
}

fn serve(listener: &TcpListener, script: Vec<Vec<Act>>, record: &Mutex<Record>) {
    for acts in script {
        if let [Act::GreetNobody] = acts[..] {
            loop {
                let teller = Teller::accept(listener, record);
                record.lock().unwrap().silent.push(teller.stream);
            }
        }
        // A client that hangs up early is done with this connection.
        let _ = Teller::accept(listener, record).follow(acts, record);
    }
}

/// One connection.
struct Teller {
    stream: TcpStream,
    received: Vec<u8>,
    request: u32,
}

impl Teller {
    fn accept(listener: &TcpListener, record: &Mutex<Record>) -> Teller {
        let (stream, _) = listener.accept().unwrap();
        record.lock().unwrap().connections += 1;
        Teller {
            stream,
            received: Vec::new(),
            request: NOTICE_ID,
        }
    }

    fn follow(mut self, acts: Vec<Act>, record: &Mutex<Record>) -> io::Result<()> {
        self.hear_hello(record)?;
        match acts.first() {
            Some(Act::Refuse(code)) => {
                return self.greet(&Greeting::Refused {
                    code: code.number(),
                    oldest_version: VERSION,
                    newest_version: VERSION,
                    message: "No.",
                });
            }
            Some(&Act::RefuseVersion(oldest_version, newest_version)) => {
                return self.greet(&Greeting::Refused {
                    code: ErrorCode::UnsupportedVersion.number(),
                    oldest_version,
                    newest_version,
                    message: "No.",
                });
            }
            Some(Act::RefuseSilently) => return Ok(()),
            _ => self.greet(&Greeting::Welcome {
                version: VERSION,
                server_time: SERVER_TIME,
                max_request_bytes: MAX_REQUEST_BYTES as u32,
                max_reply_bytes: MAX_REPLY_BYTES as u32,
            })?,
        }
        for act in acts {
            match act {
                Act::Answer(body) => {
                    self.hear(record)?;
                    let id = self.request;
                    self.reply(&Reply { id, lsn: LSN, body })?;
                }
                Act::AnswerAndTell(body, message) => {
                    self.hear(record)?;
                    let id = self.request;
                    let mut frames = Vec::new();
                    encode(&Reply { id, lsn: LSN, body }, &mut frames);
                    encode(&notice(message), &mut frames);
                    self.stream.write_all(&frames)?;
                }
                Act::Tell(message) => self.reply(&notice(message))?,
                Act::Notice(code) => {
                    let body = ReplyBody::Error {
                        code: code.number(),
                        message: "Goodbye.",
                    };
                    let id = NOTICE_ID;
                    return self.reply(&Reply { id, lsn: 0, body });
                }
                Act::HangUp => return self.hear(record),
                Act::Silence => {
                    self.hear(record)?;
                    record.lock().unwrap().silent.push(self.stream);
                    return Ok(());
                }
                Act::Refuse(_) | Act::RefuseVersion(..) | Act::RefuseSilently | Act::GreetNobody => {
                    panic!("a connection is greeted once, at its beginning")
                }
            }
        }
        Ok(())
    }

    /// Reads the hello, and records a proof that is in it.
    fn hear_hello(&mut self, record: &Mutex<Record>) -> io::Result<()> {
        let body = self.read_frame()?;
        let hello = Hello::decode(&body).unwrap();
        if let Proof::Secret(Secret(secret)) = hello.proof {
            let words = format!("{} proves itself with {secret:?}", hello.terminal);
            record.lock().unwrap().heard.push(words);
        }
        Ok(())
    }

    /// Reads a request and records it.
    fn hear(&mut self, record: &Mutex<Record>) -> io::Result<()> {
        let body = self.read_frame()?;
        let Request { id, body } = decode(&body).unwrap();
        self.request = id;
        record.lock().unwrap().heard.push(in_words(&body));
        Ok(())
    }

    fn read_frame(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some((body, used)) = split(&self.received, MAX_REQUEST_BYTES).unwrap() {
                let body = body.to_vec();
                self.received.drain(..used);
                return Ok(body);
            }
            let mut chunk = [0; 1024];
            let bytes = self.stream.read(&mut chunk)?;
            if bytes == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.received.extend_from_slice(&chunk[..bytes]);
        }
    }

    fn reply(&mut self, reply: &Reply<'_>) -> io::Result<()> {
        let mut frame = Vec::new();
        encode(reply, &mut frame);
        self.stream.write_all(&frame)
    }

    fn greet(&mut self, greeting: &Greeting<'_>) -> io::Result<()> {
        let mut frame = Vec::new();
        encode(greeting, &mut frame);
        self.stream.write_all(&frame)
    }
}

fn notice(message: &'static str) -> Reply<'static> {
    Reply {
        id: NOTICE_ID,
        lsn: 0,
        body: ReplyBody::Notice { message },
    }
}

/// What tests ask about a request.
fn in_words(request: &RequestBody<'_>) -> String {
    let name = request.name();
    let id = |bytes: &[u8; 16]| TxnId::from_bytes(*bytes).unwrap();
    match request {
        RequestBody::Login { card, pin } => format!("{name} {card} {}", pin.0),
        RequestBody::Deposit { txn_id, amount } | RequestBody::Withdraw { txn_id, amount } => {
            format!("{name} {} {amount}", id(txn_id))
        }
        RequestBody::Reverse { account, txn_id } | RequestBody::Resolve { account, txn_id } => {
            format!("{name} {account} {}", id(txn_id))
        }
        RequestBody::Advice {
            account,
            txn_id,
            amount,
        } => format!("{name} {account} {} {amount}", id(txn_id)),
        _ => name.to_owned(),
    }
}

/// The answer to a login.
pub(crate) fn logged_in() -> ReplyBody<'static> {
    ReplyBody::LoggedIn {
        account: ACCOUNT,
        currency: *b"USD",
        holder: "Ken",
    }
}

/// A receipt of 20.00 USD, after which 80.00 are left.
pub(crate) fn receipt(id: TxnId) -> Receipt {
    Receipt {
        txn_id: id.to_bytes(),
        time: SERVER_TIME,
        amount: -2000,
        balance: 8000,
        currency: *b"USD",
        head: [0xab; 32],
    }
}

/// That it was done.
pub(crate) fn approved(id: TxnId) -> ReplyBody<'static> {
    ReplyBody::Approved(receipt(id))
}

/// That there is not enough money.
pub(crate) fn declined(id: TxnId) -> ReplyBody<'static> {
    ReplyBody::Declined {
        code: ErrorCode::InsufficientFunds.number(),
        message: "Insufficient funds.",
        receipt: receipt(id),
    }
}
