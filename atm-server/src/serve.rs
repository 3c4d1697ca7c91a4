//! The accept loop: one for every kind of service. A new kind of service is a new client handler.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use bank_core::limits::{ACCEPT_BACKOFF, REFUSAL_DEADLINE, REFUSALS_AT_ONCE, SHUTDOWN_GRACE};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::net::Listener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What a service does with its clients, who come over TCP or another kind of stream. Each client is handled by a task of
/// its own.
pub trait ClientHandler<Stream = TcpStream, Peer = SocketAddr>: Send + Sync + 'static {
    /// Serves one client until it leaves. Once `shutdown` is cancelled, it finishes what it has begun, says
    /// goodbye and returns; after a grace period it is dropped wherever it is.
    fn handle(
        &self,
        stream: Stream,
        peer: Peer,
        shutdown: CancellationToken,
    ) -> impl Future<Output = ()> + Send;

    /// Tells a client, in the service's own language, that there is no room for it.
    fn refuse(&self, stream: Stream) -> impl Future<Output = ()> + Send;
}

/// Accepts clients and hands each to the handler until `shutdown` is cancelled; then lets them finish within a
/// grace period. Gives how many had not finished by then.
///
/// At most `connections` are served at once. Over that, clients are accepted and refused in words; when too
/// many are waiting for their words, accepting stops until one has had them, or a place is free.
pub async fn serve<L, H>(
    mut listener: L,
    handler: Arc<H>,
    connections: usize,
    shutdown: CancellationToken,
) -> usize
where
    L: Listener<Io: Send + 'static, Addr: Send + fmt::Debug + 'static>,
    H: ClientHandler<L::Io, L::Addr>,
{
    let clients = TaskTracker::new();
    tokio::select! {
        () = accept(&mut listener, &handler, connections, &clients, &shutdown) => {}
        () = shutdown.cancelled() => {}
    }
    drop(listener);
    clients.close();
    let _ = timeout(SHUTDOWN_GRACE, clients.wait()).await;
    clients.len()
}

async fn accept<L, H>(
    listener: &mut L,
    handler: &Arc<H>,
    connections: usize,
    clients: &TaskTracker,
    shutdown: &CancellationToken,
) where
    L: Listener<Io: Send + 'static, Addr: Send + fmt::Debug + 'static>,
    H: ClientHandler<L::Io, L::Addr>,
{
    let places = Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS)));
    let refusals = Arc::new(Semaphore::new(REFUSALS_AT_ONCE));
    let mut backoff = ACCEPT_BACKOFF.0;
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, pause = ?backoff, "accepting a connection failed");
                sleep(backoff).await;
                backoff = (backoff * 2).min(ACCEPT_BACKOFF.1);
                continue;
            }
        };
        backoff = ACCEPT_BACKOFF.0;
        let handler = Arc::clone(handler);
        // A place may become free while others are being refused.
        tokio::select! {
            biased;
            place = Arc::clone(&places).acquire_owned() => {
                // A token of its own, since at a shared one all clients would queue whenever they wait for bytes.
                let shutdown = shutdown.child_token();
                clients.spawn(async move {
                    handler.handle(stream, peer, shutdown).await;
                    drop(place);
                });
            }
            refusal = Arc::clone(&refusals).acquire_owned() => {
                tracing::warn!(?peer, connections, "refused a connection: there are as many as are served");
                clients.spawn(async move {
                    let _ = timeout(REFUSAL_DEADLINE, handler.refuse(stream)).await;
                    drop(refusal);
                });
            }
        }
    }
}
