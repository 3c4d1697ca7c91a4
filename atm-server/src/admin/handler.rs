//! The client handler for operators.

use std::io;
use std::sync::Arc;

use bank_core::Bank;
use bank_core::limits::{
    MAX_ADMIN_LINE_BYTES, MAX_ADMIN_REPLY_BYTES, OPERATORS_READING, REQUEST_DEADLINE, WRITE_DEADLINE,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::SocketAddr;
use tokio::sync::{Notify, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::socket::operator;
use super::{AdminReply, AdminRequest, operations, sessions};
use crate::log::{self, LogError};
use crate::serve::ClientHandler;
use crate::sessions::Sessions;

/// Serves operators.
pub(crate) struct AdminHandler {
    bank: Arc<Bank>,
    sessions: Arc<Sessions>,
    /// For commands that read much of the bank file.
    reading: Semaphore,
    /// Told when the server is to end.
    shutdown: Arc<Notify>,
}

impl AdminHandler {
    pub(crate) fn new(bank: Arc<Bank>, sessions: Arc<Sessions>, shutdown: Arc<Notify>) -> AdminHandler {
        AdminHandler {
            bank,
            sessions,
            reading: Semaphore::new(OPERATORS_READING),
            shutdown,
        }
    }

    /// Does what is asked. `None`: whether it was done is not known, and so is not answered.
    async fn execute(&self, request: AdminRequest, operator: u32) -> Option<AdminReply> {
        let (command, user) = (request.name(), user_name(operator));
        let reply = match request {
            AdminRequest::Sessions {} => sessions::list(&self.sessions),
            AdminRequest::Disconnect { session, terminal } => {
                sessions::disconnect(&self.sessions, session, terminal.as_deref())
            }
            AdminRequest::Broadcast { text, minutes } => sessions::broadcast(&self.sessions, &text, minutes),
            AdminRequest::ClearBroadcast {} => sessions::clear(&self.sessions),
            AdminRequest::LogLevel { filter } => match log_level(filter.as_deref()) {
                Ok(filter) => AdminReply::done(format!("the log level is {filter}")),
                Err(error) => AdminReply::refused(error.to_string()),
            },
            AdminRequest::Shutdown {} => {
                self.shutdown.notify_one();
                AdminReply::done("the server is shutting down: it serves what is under way, and ends")
            }
            request => {
                let retired = match &request {
                    AdminRequest::RetireTerminal { terminal, .. } => Some(terminal.clone()),
                    _ => None,
                };
                let _turn = match request.reads_much() {
                    true => self.reading.acquire().await.ok(),
                    false => None,
                };
                let (bank, by) = (Arc::clone(&self.bank), user.clone());
                let done = spawn_blocking(move || operations::execute(&bank, request, &by)).await;
                let Ok(Ok(reply)) = done else {
                    tracing::warn!(
                        command,
                        "left an operator unanswered, since the journal has ended"
                    );
                    return None;
                };
                if let (true, Some(terminal)) = (reply.done, retired) {
                    // Whether or not it is here just now.
                    let _ = sessions::disconnect(&self.sessions, None, Some(&terminal));
                }
                // What it says may name cards and their holders, which are not for the log.
                tracing::info!(user, command, done = reply.done, "an operator has asked");
                return Some(reply);
            }
        };
        let told = reply.message.lines().next().unwrap_or_default();
        tracing::info!(user, command, done = reply.done, told, "an operator has asked");
        Some(reply)
    }
}

/// What the operating system calls a user, or his number.
fn user_name(number: u32) -> String {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let found = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, id) = (fields.next()?, fields.next()?, fields.next()?);
        (id.parse() == Ok(number)).then(|| name.to_owned())
    });
    found.unwrap_or_else(|| format!("user {number}"))
}

/// What is logged now, after having changed it if that was asked for.
fn log_level(wanted: Option<&str>) -> Result<String, LogError> {
    if let Some(wanted) = wanted {
        log::change(wanted.parse()?)?;
    }
    log::present()
}

impl ClientHandler<UnixStream, SocketAddr> for AdminHandler {
    async fn handle(&self, mut stream: UnixStream, _: SocketAddr, shutdown: CancellationToken) {
        let operator = match operator(&stream) {
            Ok(operator) => operator,
            // Without words: he is nobody here.
            Err(error) => return tracing::warn!(%error, "refused a connection to the operators' socket"),
        };
        // With room for all of it, and read without any buffer between, lest a PIN should be left behind.
        let mut line = Zeroizing::new(Vec::with_capacity(MAX_ADMIN_LINE_BYTES));
        let read = tokio::select! {
            read = timeout(REQUEST_DEADLINE, read_line(&mut stream, &mut line)) => read,
            () = shutdown.cancelled() => return,
        };
        if !matches!(read, Ok(Ok(()))) || line.is_empty() {
            return;
        }
        let reply = match serde_json::from_slice(&line) {
            Ok(request) => match self.execute(request, operator).await {
                Some(reply) => reply,
                None => return,
            },
            Err(error) => AdminReply::refused(format!("the request was not understood: {error}")),
        };
        say(&mut stream, &reply).await;
    }

    async fn refuse(&self, mut stream: UnixStream) {
        let busy = "there are as many operators as are served at once, so nothing was done: try again later";
        say(&mut stream, &AdminReply::refused(busy)).await;
    }
}

/// Reads until a line has ended, the other side has, or the line is too long.
async fn read_line(stream: &mut UnixStream, line: &mut Vec<u8>) -> io::Result<()> {
    while line.len() < line.capacity() && !line.ends_with(b"\n") {
        if stream.read_buf(line).await? == 0 {
            break;
        }
    }
    Ok(())
}

/// Writes a reply. What was done stays done, whether or not the operator hears of it.
async fn say(stream: &mut UnixStream, reply: &AdminReply) {
    let mut line = serde_json::to_vec(reply).expect("a reply is JSON");
    if line.len() >= MAX_ADMIN_REPLY_BYTES {
        let error = format!(
            "the answer has {} bytes, and {MAX_ADMIN_REPLY_BYTES} are the most: ask for less",
            line.len()
        );
        line = serde_json::to_vec(&AdminReply::refused(error)).expect("a reply is JSON");
    }
    line.push(b'\n');
    let _ = timeout(WRITE_DEADLINE, stream.write_all(&line)).await;
}
