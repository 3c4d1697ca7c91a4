//! A bank behind a listener, from the first connection to the last commit.

use std::sync::Arc;

use bank_core::{Bank, JournalError, Registration};
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::atm_handler::AtmHandler;
use crate::serve::serve;

/// Serves the bank's terminals until `shutdown` is ready, then ends in order: no more connections, requests in
/// flight finish within a grace period, the journal is committed and the bank file finished.
///
/// # Errors
/// [`JournalError::Failed`] if a commit failed. Then nothing more was answered and the bank file was not touched
/// again; the process should end, and the next opening finds out what is on disk.
pub async fn run(
    listener: TcpListener,
    bank: Arc<Bank>,
    connections: usize,
    registration: Registration,
    shutdown: impl Future<Output = &'static str>,
) -> Result<(), JournalError> {
    let stop = CancellationToken::new();
    let handler = Arc::new(AtmHandler::new(Arc::clone(&bank), registration));
    let serving = tokio::spawn(serve(listener, handler, connections, stop.clone()));
    tokio::select! {
        error = bank.journal().ended() => return Err(error),
        reason = shutdown => tracing::info!(reason, "shutting down"),
    }
    stop.cancel();
    let unfinished = serving.await.expect("accepting connections does not panic");
    if unfinished > 0 {
        tracing::warn!(unfinished, "connections did not finish within the grace period");
    }
    spawn_blocking(move || bank.close())
        .await
        .expect("closing the bank does not panic")
}
