//! A bank behind a listener, from the first connection to the last commit.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bank_core::limits::{
    ACCEPT_BACKLOG, ADMIN_CONNECTIONS, SOCKET_SEND_BYTES, WATCH_CONNECTIONS, WRITE_DEADLINE,
};
use bank_core::{Bank, JournalError, Registration};
#[cfg(target_os = "linux")]
use rustix::net::sockopt::set_tcp_user_timeout;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::admin::handler::AdminHandler;
use crate::admin::socket::AdminSocket;
use crate::atm_handler::AtmHandler;
use crate::serve::serve;
use crate::service_manager;
use crate::tls::Tls;
use crate::watch::http::WatchHandler;
use crate::watch::{Watch, WatchListener};

/// How terminals are served.
#[derive(Clone, Debug)]
pub struct Service {
    /// Connections served at once, at least 1.
    pub connections: usize,
    /// Who registers terminals.
    pub registration: Registration,
    /// What is spoken with them; without it, whoever is on the way can read PINs.
    pub tls: Option<Tls>,
}

impl Service {
    /// For terminals of this machine: none needs to prove itself, and nothing leaves it.
    pub fn on_loopback(connections: usize) -> Service {
        Service {
            connections,
            registration: Registration::BySelf,
            tls: None,
        }
    }
}

/// Listens on an address. What is accepted there keeps little for clients that do not read ([`SOCKET_SEND_BYTES`]), and not
/// for long: without a deadline of its own the kernel would keep for minutes what a client that was put out has not read.
///
/// # Errors
/// If the address cannot be listened on.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // A server that is started again does not wait until the connections of the last one are forgotten.
    socket.set_reuseaddr(true)?;
    // Accepted sockets have both from the one that listens.
    socket.set_send_buffer_size(SOCKET_SEND_BYTES as u32)?;
    #[cfg(target_os = "linux")]
    set_tcp_user_timeout(&socket, WRITE_DEADLINE.as_millis() as u32)?;
    socket.bind(address)?;
    socket.listen(ACCEPT_BACKLOG)
}

/// Serves the bank's terminals, its operators at `admin`, and those who look on at `watch`, until `shutdown` is ready or an operator says so, then
/// ends in order: no more connections, requests in flight finish within a grace period, the journal is committed and
/// the bank file finished.
///
/// # Errors
/// [`JournalError::Failed`] if a commit failed. Then nothing more was answered and the bank file was not touched
/// again; the process should end, and the next opening finds out what is on disk.
pub async fn run(
    listener: TcpListener,
    bank: Arc<Bank>,
    service: Service,
    admin: Option<AdminSocket>,
    watch: Option<WatchListener>,
    shutdown: impl Future<Output = &'static str>,
) -> Result<(), JournalError> {
    let stop = CancellationToken::new();
    let connections = service.connections;
    let handler = Arc::new(AtmHandler::new(Arc::clone(&bank), service));
    let (sessions, metrics) = (Arc::clone(handler.sessions()), Arc::clone(handler.metrics()));
    bank.journal()
        .observe(Box::new(move |commit| metrics.committed(commit)));
    // Those who look on are answered until the bank is closed.
    let closed = CancellationToken::new();
    let _watching = closed.clone().drop_guard();
    if let Some(WatchListener { listener, hosts }) = watch {
        let watch = Arc::new(Watch::new(Arc::clone(&bank), Arc::clone(&handler), stop.clone()));
        let handler = Arc::new(WatchHandler::new(Arc::clone(&watch), hosts));
        tokio::spawn(serve(listener, handler, WATCH_CONNECTIONS, closed.clone()));
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            tokio::join!(watch.remember(), watch.check_books());
        }));
    }
    let serving = tokio::spawn(serve(listener, handler, connections, stop.clone()));
    let asked = Arc::new(Notify::new());
    let operators = admin.map(|socket| {
        let handler = Arc::new(AdminHandler::new(Arc::clone(&bank), sessions, Arc::clone(&asked)));
        let (listener, file) = socket.into_parts();
        let serving = serve(listener, handler, ADMIN_CONNECTIONS, stop.clone());
        tokio::spawn(async move {
            serving.await;
            drop(file);
        })
    });
    let reason = tokio::select! {
        error = bank.journal().ended() => return Err(error),
        reason = shutdown => reason,
        () = asked.notified() => "an operator",
    };
    tracing::info!(reason, "shutting down");
    service_manager::stopping(reason);
    stop.cancel();
    let unfinished = serving.await.expect("accepting connections does not panic");
    if let Some(operators) = operators {
        operators.await.expect("accepting operators does not panic");
    }
    if unfinished > 0 {
        tracing::warn!(unfinished, "connections did not finish within the grace period");
    }
    spawn_blocking(move || bank.close())
        .await
        .expect("closing the bank does not panic")
}
