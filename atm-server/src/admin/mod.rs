//! The operators' socket: how a running server is told what only an operator may say.
//!
//! It is a Unix socket that the server's user alone may use. A connection carries one request and one reply, each a
//! line of JSON; [`ask`] is the operator's side, [`handler`] the server's, and [`socket`] is about who may connect. What is
//! told as a table is drawn by [`table`].

pub mod handler;
mod sessions;
pub mod socket;
pub mod table;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use bank_core::limits::{MAX_ADMIN_REPLY_BYTES, REPLY_DEADLINE};
use serde::{Deserialize, Serialize};

/// What an operator wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum AdminRequest {
    /// A card that was blocked is to be of use again.
    UnblockCard {
        /// The card's number.
        card: String,
    },
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
    /// Its name on the command line and in the log.
    pub fn name(&self) -> &'static str {
        match self {
            AdminRequest::UnblockCard { .. } => "unblock-card",
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
    let mut line = serde_json::to_string(request).expect("a request is JSON");
    line.push('\n');
    let exchange = || {
        stream.set_read_timeout(Some(REPLY_DEADLINE))?;
        stream.set_write_timeout(Some(REPLY_DEADLINE))?;
        stream.write_all(line.as_bytes())?;
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
