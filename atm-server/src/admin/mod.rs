//! The operators' socket: how a running server is told what only an operator may say.
//!
//! It is a Unix socket that the server's user alone may use. A connection carries one request and one reply, each a
//! line of JSON; [`ask`] is the operator's side, [`handler`] the server's, and [`socket`] is about who may connect. What is
//! told as a table is drawn by [`table`]; what changes the bank is in `operations`.

pub mod handler;
mod operations;
mod sessions;
pub mod socket;
pub mod table;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use bank_core::limits::{ADMIN_REPLY_DEADLINE, MAX_ADMIN_LINE_BYTES, MAX_ADMIN_REPLY_BYTES, REPLY_DEADLINE};
use bank_core::protocol::Secret;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Who orders a change, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct By {
    /// The operator's name; if none, that of the user at the other end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// A UUID of version 7: under the same one a command is not carried out twice. If none, it is a new command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// A PIN's digits on their way.
pub type PinDigits = Secret<Zeroizing<String>>;

/// What an operator wants. Sums are texts in the account's currency, as people write them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum AdminRequest {
    /// Accounts are to be listed.
    Accounts {
        /// Which: a number, a status, "overdrawn", "blocked", or a part of a holder's name. Empty: all.
        #[serde(default)]
        filter: String,
        /// How many at most.
        lines: u32,
    },
    /// An account is to be opened.
    OpenAccount {
        /// Its number; if none, the next.
        #[serde(default)]
        account: Option<u64>,
        /// Its currency.
        currency: String,
        /// What it opens with.
        balance: String,
        /// How far it may be overdrawn.
        overdraft: String,
        /// How much may be withdrawn in a day; if none, as much as there is.
        #[serde(default)]
        daily: Option<String>,
        /// Who orders it.
        #[serde(default)]
        by: By,
    },
    /// A card is to be issued.
    AddCard {
        /// The card's number.
        card: String,
        /// Whom it is issued to.
        holder: String,
        /// The account that it opens.
        account: u64,
        /// Its PIN.
        pin: PinDigits,
        /// Who orders it.
        #[serde(default)]
        by: By,
    },
    /// Nothing is to happen on an account for the time being.
    Freeze {
        /// Which.
        account: u64,
        /// Who orders it.
        #[serde(default)]
        by: By,
    },
    /// A frozen account is to be of use again.
    Unfreeze {
        /// Which.
        account: u64,
        /// Who orders it.
        #[serde(default)]
        by: By,
    },
    /// An empty account is to be closed for ever.
    Close {
        /// Which.
        account: u64,
        /// Who orders it.
        #[serde(default)]
        by: By,
    },
    /// An account's limits are to change; what is not named stays.
    Limits {
        /// Which account.
        account: u64,
        /// How far it may be overdrawn.
        #[serde(default)]
        overdraft: Option<String>,
        /// How much may be withdrawn in a day, or "none".
        #[serde(default)]
        daily: Option<String>,
        /// Who orders it.
        #[serde(default)]
        by: By,
    },
    /// Something is to be put right on an account.
    Adjust {
        /// Which account.
        account: u64,
        /// What is added, or with a minus taken.
        amount: String,
        /// Which of the bank's accounts has the other side: "adjustment" or "suspense".
        against: String,
        /// Who orders it.
        #[serde(default)]
        by: By,
    },
    /// Interest is to be posted.
    Interest {
        /// A percentage, such as "2%".
        rate: String,
        /// A month, such as "2026-11".
        period: String,
        /// Who orders it.
        #[serde(default)]
        by: By,
    },
    /// A card that was blocked is to be of use again.
    UnblockCard {
        /// The card's number.
        card: String,
        /// Who orders it.
        #[serde(default)]
        by: By,
    },
    /// A card is to have a new PIN, and all its tries.
    ResetPin {
        /// The card's number.
        card: String,
        /// The new PIN.
        pin: PinDigits,
        /// Who orders it.
        #[serde(default)]
        by: By,
    },
    /// A terminal is to come in with a secret.
    AddTerminal {
        /// Which.
        terminal: String,
        /// The secret's BLAKE2s-256, in hexadecimal digits.
        secret_hash: String,
        /// Whether it may take the place of a secret that the terminal has.
        #[serde(default)]
        replace: bool,
        /// Who orders it.
        #[serde(default)]
        by: By,
    },
    /// A terminal is to come in no more.
    RetireTerminal {
        /// Which.
        terminal: String,
        /// Who orders it.
        #[serde(default)]
        by: By,
    },
    /// An account's newest rows are to be shown.
    Statement {
        /// Which account.
        account: u64,
        /// How many rows at most.
        lines: u32,
    },
    /// The newest commands of operators are to be shown.
    Actions {
        /// How many at most.
        lines: u32,
    },
    /// The business dates up to this one are to be closed.
    CloseDay {
        /// Which; if none, the one before the present one.
        #[serde(default)]
        date: Option<String>,
        /// Who orders it.
        #[serde(default)]
        by: By,
    },
    /// The time of day at which the next business date begins is to be told, or to change.
    CutOver {
        /// The time, in UTC; if none, nothing changes.
        #[serde(default)]
        time: Option<String>,
        /// Who orders it.
        #[serde(default)]
        by: By,
    },
    /// The tables of accounts are to be brought up to date, and SQLite's log copied.
    Checkpoint {},
    /// Who is connected is asked for.
    Sessions {},
    /// A session, or all of a terminal, is to end: one of the two is named.
    Disconnect {
        /// The session's number.
        #[serde(default)]
        session: Option<u64>,
        /// The terminal's id.
        #[serde(default)]
        terminal: Option<String>,
    },
    /// A line is to be shown on every terminal.
    Broadcast {
        /// The line.
        text: String,
        /// How long it is shown to those that connect, in minutes.
        minutes: u16,
    },
    /// The line is to be shown no more.
    ClearBroadcast {},
    /// What is logged is to be told, or to change.
    LogLevel {
        /// As for `--log-level`; without it, nothing changes.
        filter: Option<String>,
    },
    /// The server is to end in order. (In braces, since of a name alone serde would take whatever stands beside it.)
    Shutdown {},
}

impl AdminRequest {
    /// Whether it changes the bank under a request id, so that it may be asked again.
    pub fn is_change(&self) -> bool {
        !matches!(
            self,
            AdminRequest::Accounts { .. }
                | AdminRequest::Statement { .. }
                | AdminRequest::Actions { .. }
                | AdminRequest::CutOver { time: None, .. }
                | AdminRequest::Checkpoint {}
                | AdminRequest::LogLevel { .. }
                | AdminRequest::Sessions {}
                | AdminRequest::Disconnect { .. }
                | AdminRequest::Broadcast { .. }
                | AdminRequest::ClearBroadcast {}
                | AdminRequest::Shutdown {}
        )
    }

    /// Whether it may read much of the bank file.
    pub fn reads_much(&self) -> bool {
        matches!(
            self,
            AdminRequest::Accounts { .. }
                | AdminRequest::Statement { .. }
                | AdminRequest::Actions { .. }
                | AdminRequest::CloseDay { .. }
        )
    }

    /// Its name on the command line and in the log.
    pub fn name(&self) -> &'static str {
        match self {
            AdminRequest::Accounts { .. } => "accounts",
            AdminRequest::OpenAccount { .. } => "open-account",
            AdminRequest::AddCard { .. } => "add-card",
            AdminRequest::Freeze { .. } => "freeze",
            AdminRequest::Unfreeze { .. } => "unfreeze",
            AdminRequest::Close { .. } => "close",
            AdminRequest::Limits { .. } => "limits",
            AdminRequest::Adjust { .. } => "adjust",
            AdminRequest::Interest { .. } => "interest",
            AdminRequest::UnblockCard { .. } => "unblock-card",
            AdminRequest::ResetPin { .. } => "reset-pin",
            AdminRequest::AddTerminal { .. } => "add-terminal",
            AdminRequest::RetireTerminal { .. } => "retire-terminal",
            AdminRequest::Statement { .. } => "statement",
            AdminRequest::Actions { .. } => "actions",
            AdminRequest::CloseDay { .. } => "close-day",
            AdminRequest::CutOver { .. } => "cut-over",
            AdminRequest::Checkpoint {} => "checkpoint",
            AdminRequest::Sessions {} => "sessions",
            AdminRequest::Disconnect { .. } => "disconnect",
            AdminRequest::Broadcast { .. } => "broadcast",
            AdminRequest::ClearBroadcast {} => "broadcast --clear",
            AdminRequest::LogLevel { .. } => "log-level",
            AdminRequest::Shutdown {} => "shutdown",
        }
    }
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminReply {
    /// Whether it is as the operator wants it now.
    pub done: bool,
    /// What was done or found, or why it was not, for a person: a plain sentence, or a table.
    pub message: String,
    /// What was found, for a program: `--json` shows it in the message's place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<serde_json::Value>,
}

impl AdminReply {
    /// It is as the operator wants it.
    pub fn done(message: impl Into<String>) -> AdminReply {
        AdminReply {
            done: true,
            message: message.into(),
            data: None,
        }
    }

    /// It is not, and this is why.
    pub fn refused(message: impl Into<String>) -> AdminReply {
        AdminReply {
            done: false,
            ..AdminReply::done(message)
        }
    }

    /// The same reply, with something for a program.
    #[must_use]
    pub fn with(self, data: serde_json::Value) -> AdminReply {
        AdminReply {
            data: Some(data),
            ..self
        }
    }

    /// The reply as `--json` shows it, in one line: `done`, and `data` if there is any, else `message`.
    pub fn to_json(&self) -> String {
        let AdminReply { done, message, data } = self;
        match data {
            Some(data) => serde_json::json!({ "done": done, "data": data }),
            None => serde_json::json!({ "done": done, "message": message }),
        }
        .to_string()
    }
}

/// Why an operator has no reply.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody is there.
    #[error(
        "{}: {source}: is a server running, with this --admin-socket, and as your user?",
        path.display()
    )]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The connection broke, or no reply came in time.
    #[error("the server did not answer, so it may have done it or not: {0}")]
    Lost(#[source] io::Error),
    /// The reply is none.
    #[error("the server's answer was not understood, so it may have done it or not: {0}")]
    NotUnderstood(#[source] serde_json::Error),
}

/// Asks a running server, and waits for its reply.
///
/// # Errors
/// [`AskError`].
pub fn ask(path: &Path, request: &AdminRequest) -> Result<AdminReply, AskError> {
    let mut stream = UnixStream::connect(path).map_err(|source| AskError::Unreachable {
        path: path.to_owned(),
        source,
    })?;
    // With room for all of it, lest a PIN should be left behind where it was before it grew.
    let mut line = Zeroizing::new(Vec::with_capacity(MAX_ADMIN_LINE_BYTES));
    serde_json::to_writer(&mut *line, request).expect("a request is JSON");
    line.push(b'\n');
    let exchange = || {
        stream.set_read_timeout(Some(ADMIN_REPLY_DEADLINE))?;
        stream.set_write_timeout(Some(REPLY_DEADLINE))?;
        stream.write_all(&line)?;
        let mut reply = String::new();
        let bytes = BufReader::new(stream.take(MAX_ADMIN_REPLY_BYTES as u64)).read_line(&mut reply)?;
        if bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(reply)
    };
    let reply = exchange().map_err(AskError::Lost)?;
    serde_json::from_str(&reply).map_err(AskError::NotUnderstood)
}
