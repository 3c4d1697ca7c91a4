//! The operators' socket: how a running server is told what only an operator may say.
//!
//! It is a Unix socket that the server's user alone may use. A connection carries one request and one reply, each a
//! line of JSON; [`ask`] is the operator's side, [`handler`] the server's, and [`socket`] is about who may connect.

pub mod handler;
pub mod socket;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use bank_core::limits::{MAX_ADMIN_LINE_BYTES, REPLY_DEADLINE};
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
    /// What was done, or why it was not, in a plain sentence.
    pub message: String,
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
        let bytes = BufReader::new(stream.take(MAX_ADMIN_LINE_BYTES as u64)).read_line(&mut reply)?;
        if bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(reply)
    };
    let reply = exchange().map_err(AskError::Lost)?;
    serde_json::from_str(&reply).map_err(AskError::NotUnderstood)
}
