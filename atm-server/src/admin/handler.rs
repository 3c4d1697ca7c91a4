//! The client handler for operators.

use std::sync::Arc;

use bank_core::limits::{MAX_ADMIN_LINE_BYTES, MAX_ADMIN_REPLY_BYTES, REQUEST_DEADLINE, WRITE_DEADLINE};
use bank_core::{Bank, CardNumber, Instruction, TxnId, Unblocked};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::SocketAddr;
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::socket::operator;
use super::{AdminReply, AdminRequest, sessions};
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
            AdminRequest::UnblockCard { card } => {
                let bank = Arc::clone(&self.bank);
                let instruction = Instruction::new(format!("user {operator}"), None, TxnId::generate())
                    .expect("a number is a name");
                spawn_blocking(move || unblock_card(&bank, &instruction, &card))
                    .await
                    .unwrap_or_else(|_| AdminReply::refused("the server is ending"))
            }
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
        }
    }
}

fn unblock_card(bank: &Bank, instruction: &Instruction, card: &str) -> AdminReply {
    let number = match CardNumber::new(card) {
        Ok(number) => number,
        Err(error) => return AdminReply::refused(error.to_string()),
    };
    match bank.unblock_card(instruction, &number).map(|(found, _)| found) {
        Ok(Unblocked::Before) => AdminReply::done(format!("card {card} was unblocked by this request before")),
        Ok(Unblocked::WasBlocked) => AdminReply::done(format!("card {card} is unblocked, and has all its tries")),
        Ok(Unblocked::WasNotBlocked) => AdminReply::done(format!(
            "card {card} was not blocked; the tries counted so far are forgotten"
        )),
        Err(error) => AdminReply::refused(error.to_string()),
    }
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
        let mut line = Vec::new();
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
