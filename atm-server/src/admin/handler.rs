//! The client handler for operators.

use std::sync::Arc;

use bank_core::Bank;
use bank_core::limits::{MAX_ADMIN_LINE_BYTES, MAX_ADMIN_REPLY_BYTES, REQUEST_DEADLINE, WRITE_DEADLINE};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::SocketAddr;
use tokio::sync::Notify;
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
    /// Told when the server is to end.
    shutdown: Arc<Notify>,
}

impl AdminHandler {
    pub(crate) fn new(bank: Arc<Bank>, sessions: Arc<Sessions>, shutdown: Arc<Notify>) -> AdminHandler {
        AdminHandler {
            bank,
            sessions,
            shutdown,
        }
    }

    async fn execute(&self, request: AdminRequest, operator: u32) -> AdminReply {
        tracing::info!(operator, command = request.name(), "an operator asks");
        match request {
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
                let (bank, user) = (Arc::clone(&self.bank), user_name(operator));
                let reply = spawn_blocking(move || operations::execute(&bank, request, &user))
                    .await
                    .unwrap_or_else(|_| AdminReply::refused("the server is ending"));
                if let (true, Some(terminal)) = (reply.done, retired) {
                    // Whether or not it is here just now.
                    let _ = sessions::disconnect(&self.sessions, None, Some(&terminal));
                }
                reply
            }
        }
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
            Err(error) => return tracing::warn!(%error, "refused a connection to the operators' socket"),
        };
        let (reader, mut writer) = stream.split();
        // With room for all of it, lest a PIN should be left behind where it was before it grew.
        let mut line = Zeroizing::new(Vec::with_capacity(MAX_ADMIN_LINE_BYTES));
        let mut reader = BufReader::new(reader.take(MAX_ADMIN_LINE_BYTES as u64));
        let read = tokio::select! {
            read = timeout(REQUEST_DEADLINE, reader.read_until(b'\n', &mut line)) => read,
            () = shutdown.cancelled() => return,
        };
        if !matches!(read, Ok(Ok(1..))) {
            return;
        }
        let reply = match serde_json::from_slice(&line) {
            Ok(request) => self.execute(request, operator).await,
            Err(error) => AdminReply::refused(format!("the request was not understood: {error}")),
        };
        let mut reply = serde_json::to_vec(&reply).expect("a reply is JSON");
        if reply.len() >= MAX_ADMIN_REPLY_BYTES {
            let error = format!(
                "the answer has {} bytes, and {MAX_ADMIN_REPLY_BYTES} are the most: ask for less",
                reply.len()
            );
            reply = serde_json::to_vec(&AdminReply::refused(error)).expect("a reply is JSON");
        }
        reply.push(b'\n');
        // What was done stays done, whether or not the operator hears of it.
        let _ = timeout(WRITE_DEADLINE, writer.write_all(&reply)).await;
    }

    /// Without words: there are as many operators as nobody has.
    async fn refuse(&self, stream: UnixStream) {
        drop(stream);
    }
}
