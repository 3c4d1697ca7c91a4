//! The client handler that speaks the native protocol: handshake, then requests and replies.

use std::net::SocketAddr;
use std::sync::Arc;

use bank_core::certificates::names_terminal;
use bank_core::limits::{HANDSHAKE_DEADLINE, MAX_REPLY_BYTES, MAX_REQUEST_BYTES, WRITE_BUFFER_BYTES};
use bank_core::protocol::{
    ErrorCode, FrameError, Greeting, Hello, HelloError, NOTICE_ID, Proof, Reply, ReplyBody, Request, VERSION,
    decode, encode,
};
use bank_core::{Bank, JournalError, Lsn, Moment, Registration, TerminalId, TerminalProof};
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::blocking_work::BlockingWork;
use crate::connection::{Connection, ReadEnd};
use crate::metrics::{Answered, Batch, Metrics, RequestKind};
use crate::serve::ClientHandler;
use crate::server::Service;
use crate::session::{Command, Session};
use crate::sessions::{Seen, Sessions, Shown};
use crate::tls::Tls;

/// Serves ATM terminals.
pub struct AtmHandler {
    bank: Arc<Bank>,
    blocking: Arc<BlockingWork>,
    registration: Registration,
    tls: Option<Tls>,
    sessions: Arc<Sessions>,
    metrics: Arc<Metrics>,
}

/// Who is at the other end, before it has said anything.
struct Peer {
    address: SocketAddr,
    /// What names it, if it has shown that.
    certificate: Option<CertificateDer<'static>>,
}

/// Why a conversation ends.
enum End {
    /// The client has gone, or cannot be written to: there is nobody to tell.
    Gone,
    /// Nothing more may be answered, not even that.
    Journal(JournalError),
    /// The client is told, and then the connection is closed.
    Say(ErrorCode, String),
}

impl AtmHandler {
    /// A handler for a bank's terminals.
    pub fn new(bank: Arc<Bank>, service: Service) -> AtmHandler {
        let metrics = Arc::new(Metrics::new());
        AtmHandler {
            sessions: Arc::new(Sessions::new(Arc::clone(&metrics))),
            metrics,
            registration: service.registration,
            tls: service.tls,
            blocking: Arc::new(BlockingWork::new(Arc::clone(&bank))),
            bank,
        }
    }

    /// All sessions that there are.
    pub(crate) fn sessions(&self) -> &Arc<Sessions> {
        &self.sessions
    }

    /// What is counted.
    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// How many PINs are being checked, or wait for it.
    pub(crate) fn pin_checks(&self) -> usize {
        self.blocking.logins_under_way()
    }

    /// Speaks with a client, who must say hello by the deadline.
    async fn converse<S>(&self, stream: S, peer: Peer, deadline: Instant, shutdown: &CancellationToken)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut connection = Connection::new(stream);
        let address = peer.address;
        let (terminal, proof) = match self.handshake(&mut connection, peer, deadline, shutdown).await {
            Ok(introduced) => introduced,
            Err(End::Gone) => return,
            Err(End::Journal(error)) => return tracing::debug!(%error, "left a terminal unanswered"),
            Err(End::Say(code, message)) => {
                self.metrics.refused(code);
                tracing::info!(peer = %address.ip(), code = code.name(), message, "refused a terminal");
                encode(&refusal(code, &message), &mut connection.replies.bytes);
                return connection.finish().await;
            }
        };
        let shown = Shown {
            tls: self.tls.is_some(),
            proof,
        };
        let mut session = Session::new(
            Arc::clone(&self.bank),
            Arc::clone(&self.blocking),
            terminal,
            address.ip(),
            self.sessions.enter(terminal, address, shown, shutdown),
        );
        // Whoever retires a terminal ends its sessions; one that was let in just before, but had none yet, ends here.
        let end = if self.bank.is_retired(terminal) {
            refuse_terminal(&"it is retired")
        } else {
            self.answer_requests(&mut connection, &mut session).await
        };
        match end {
            End::Gone => {}
            End::Journal(error) => tracing::debug!(%terminal, %error, "left a terminal unanswered"),
            End::Say(code, message) => {
                tracing::debug!(%terminal, code = code.name(), message, "closes a connection");
                let body = ReplyBody::Error {
                    code: code.number(),
                    message: &message,
                };
                encode(&of_its_own_accord(body), &mut connection.replies.bytes);
                connection.finish().await;
            }
        }
    }

    async fn handshake<S>(
        &self,
        connection: &mut Connection<S>,
        peer: Peer,
        deadline: Instant,
        shutdown: &CancellationToken,
    ) -> Result<(TerminalId, &'static str), End>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let hello = loop {
            match connection.take_frame(MAX_REQUEST_BYTES, read_hello)? {
                Some(hello) => break hello,
                None => connection.read_until(deadline, shutdown).await?,
            }
        };
        let Introduction { terminal, secret } = hello?;
        let proof = match (&peer.certificate, &secret) {
            (Some(certificate), _) if names_terminal(certificate, terminal) => TerminalProof::Certificate,
            (Some(_), _) => return Err(refuse_terminal(&"its certificate does not name it")),
            (None, Some(secret)) => TerminalProof::Secret(secret),
            (None, None) => TerminalProof::None,
        };
        // Whoever comes from another machine does not introduce himself.
        let registration = if peer.address.ip().to_canonical().is_loopback() {
            self.registration
        } else {
            Registration::ByOperator
        };
        let slot = self.bank.journal().reserve().await?;
        let registered = self
            .bank
            .admit_terminal(slot, terminal, proof, registration, Moment::now().time)
            .map_err(|error| {
                tracing::info!(%terminal, showed = shown(&proof), "a terminal did not prove itself");
                refuse_terminal(&error)
            })?;
        self.bank.journal().update_durable(registered).await?;
        let welcome = Greeting::Welcome {
            version: VERSION,
            server_time: Moment::now().time.millis(),
            max_request_bytes: MAX_REQUEST_BYTES as u32,
            max_reply_bytes: MAX_REPLY_BYTES as u32,
        };
        encode(&welcome, &mut connection.replies.bytes);
        Ok((terminal, shown(&proof).trim_start_matches("a ")))
    }

    /// Executes whatever whole requests have been received, waits once until all that they depend on is
    /// durable, writes all their replies with one write, and reads on.
    async fn answer_requests<S>(&self, connection: &mut Connection<S>, session: &mut Session) -> End
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        loop {
            if let Err(end) = self.execute_received(connection, session).await {
                return end;
            }
            // A client that never pauses would else not be told.
            if session.presence.attention().is_cancelled() {
                match session.presence.look_up() {
                    Seen::Shutdown => return ReadEnd::Shutdown.into(),
                    Seen::Disconnected => {
                        return End::Say(
                            ErrorCode::Disconnected,
                            "The bank's operator has ended this connection.".into(),
                        );
                    }
                    Seen::Notice(message) => {
                        let body = ReplyBody::Notice { message: &message };
                        encode(&of_its_own_accord(body), &mut connection.replies.bytes);
                        if connection.write_replies().await.is_err() {
                            return End::Gone;
                        }
                    }
                    Seen::Nothing => {}
                }
            }
            match connection.read(session.presence.attention()).await {
                // Why is looked at above.
                Ok(()) | Err(ReadEnd::Shutdown) => {}
                Err(end) => return end.into(),
            }
        }
    }

    /// What was executed before a frame that is none is answered first.
    async fn execute_received<S>(
        &self,
        connection: &mut Connection<S>,
        session: &mut Session,
    ) -> Result<(), End>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (mut newest, mut batch) = (Lsn::ZERO, Batch::default());
        let end = loop {
            let request = connection.take_frame(MAX_REQUEST_BYTES, |body| {
                decode::<Request<'_>>(body)
                    .map(|request| (request.id, RequestKind::of(&request.body), Command::new(&request)))
            });
            let (id, kind, command) = match request {
                Ok(Some(Ok(request))) => request,
                Ok(None) => break Ok(()),
                Ok(Some(Err(error))) | Err(error) => break Err(error.into()),
            };
            let is_slow = command.is_slow();
            if is_slow || connection.replies.bytes.len() > WRITE_BUFFER_BYTES - MAX_REPLY_BYTES {
                self.flush(connection, newest).await?;
                session.presence.took(&mut batch);
            }
            batch.add(kind);
            let mut answered = Answered::default();
            let replies = &mut connection.replies;
            newest = newest.max(session.execute(id, command, replies, &mut answered).await?);
            session.presence.answered(kind, answered);
            if is_slow {
                // What comes after it has not waited for it.
                self.flush(connection, newest).await?;
                session.presence.took(&mut batch);
            }
        };
        self.flush(connection, newest).await?;
        session.presence.took(&mut batch);
        end
    }

    /// Waits until the newest row that the gathered replies depend on is durable, and writes them.
    async fn flush<S>(&self, connection: &mut Connection<S>, newest: Lsn) -> Result<(), End>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.bank.journal().durable(newest).await?;
        while let Some(lsn) = connection.replies.seal(|lsn| self.bank.head_at_hand(lsn)) {
            // Of a row of long ago, which was asked for again.
            let head = self.blocking.search(move |bank| Ok(bank.head_at(lsn)?)).await;
            let head = head.map_err(|error| {
                tracing::error!(%error, %lsn, "a receipt could not be completed");
                End::Gone
            })?;
            connection.replies.seal(|wanted| (wanted == lsn).then_some(head));
        }
        connection.write_replies().await.map_err(|_| End::Gone)
    }

    /// Shakes hands by TLS. `None`: nothing more is to be said.
    async fn secure(
        &self,
        tls: &Tls,
        stream: TcpStream,
    ) -> Option<(TlsStream<TcpStream>, Option<CertificateDer<'static>>)> {
        let peer = stream
            .peer_addr()
            .map_or_else(|error| error.to_string(), |peer| peer.to_string());
        // A frame begins with the zero of its length, and nothing that TLS says does.
        let mut first = [0xff];
        if matches!(stream.peek(&mut first).await, Ok(1)) && first == [0] {
            self.metrics.refused(ErrorCode::TlsRequired);
            tracing::info!(peer, "refused a connection: it does not speak TLS");
            say(
                stream,
                ErrorCode::TlsRequired,
                "This bank speaks TLS with its terminals. Please give the terminal the authority's certificate (--tls-ca).",
            )
            .await;
            return None;
        }
        tls.accept(stream)
            .await
            .map_err(|error| {
                self.metrics.tls_failed();
                tracing::info!(peer, %error, "refused a connection: TLS failed");
            })
            .ok()
    }
}

/// What the server says without being asked.
fn of_its_own_accord(body: ReplyBody<'_>) -> Reply<'_> {
    Reply {
        id: NOTICE_ID,
        lsn: 0,
        body,
    }
}

/// Refuses a client by its first frame.
async fn say<S: AsyncRead + AsyncWrite + Unpin>(stream: S, code: ErrorCode, message: &str) {
    let mut connection = Connection::new(stream);
    encode(&refusal(code, message), &mut connection.replies.bytes);
    connection.finish().await;
}

impl ClientHandler for AtmHandler {
    async fn handle(&self, stream: TcpStream, address: SocketAddr, shutdown: CancellationToken) {
        tracing::debug!(peer = %address, "connected");
        self.metrics.connected();
        let deadline = Instant::now() + HANDSHAKE_DEADLINE;
        // Replies are written whole, so waiting to fill a segment would only delay them.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(peer = %address, %error, "a connection broke as it was accepted");
            return;
        }
        match &self.tls {
            None => {
                let peer = Peer {
                    address,
                    certificate: None,
                };
                self.converse(stream, peer, deadline, &shutdown).await;
            }
            // In a place of its own, lest connections without TLS should have room for it.
            Some(tls) => {
                Box::pin(async {
                    let secured = tokio::select! {
                        secured = timeout_at(deadline, self.secure(tls, stream)) => secured,
                        () = shutdown.cancelled() => return,
                    };
                    if let Ok(Some((stream, certificate))) = secured {
                        let peer = Peer { address, certificate };
                        self.converse(stream, peer, deadline, &shutdown).await;
                    }
                })
                .await;
            }
        }
        tracing::debug!(peer = %address, "disconnected");
    }

    async fn refuse(&self, stream: TcpStream) {
        self.metrics.refused(ErrorCode::TooManyConnections);
        const FULL: &str = "The server has as many connections as it takes. Please try again later.";
        match &self.tls {
            None => say(stream, ErrorCode::TooManyConnections, FULL).await,
            Some(tls) => {
                if let Some((stream, _)) = self.secure(tls, stream).await {
                    say(stream, ErrorCode::TooManyConnections, FULL).await;
                }
            }
        }
    }
}

/// What a terminal says of itself.
struct Introduction {
    terminal: TerminalId,
    secret: Option<Zeroizing<Vec<u8>>>,
}

fn read_hello(body: &[u8]) -> Result<Introduction, End> {
    let hello = Hello::decode(body).map_err(|error| match error {
        HelloError::Frame(error) => error.into(),
        HelloError::Version(version) => End::Say(
            ErrorCode::UnsupportedVersion,
            format!("Version {version} of the protocol is not spoken here, only version {VERSION}."),
        ),
    })?;
    Ok(Introduction {
        terminal: TerminalId::new(hello.terminal).map_err(|error| refuse_terminal(&error))?,
        secret: match hello.proof {
            Proof::None => None,
            Proof::Secret(secret) => Some(Zeroizing::new(secret.0.to_vec())),
        },
    })
}

/// What a terminal has shown, for the log.
fn shown(proof: &TerminalProof<'_>) -> &'static str {
    match proof {
        TerminalProof::None => "nothing",
        TerminalProof::Secret(_) => "a secret",
        TerminalProof::Certificate => "a certificate",
    }
}

fn refuse_terminal(why: &dyn std::fmt::Display) -> End {
    End::Say(
        ErrorCode::TerminalRefused,
        format!("The terminal is refused: {why}."),
    )
}

fn refusal(code: ErrorCode, message: &str) -> Greeting<'_> {
    Greeting::Refused {
        code: code.number(),
        oldest_version: VERSION,
        newest_version: VERSION,
        message,
    }
}

impl From<JournalError> for End {
    fn from(error: JournalError) -> End {
        End::Journal(error)
    }
}

impl From<FrameError> for End {
    fn from(error: FrameError) -> End {
        let code = match error {
            FrameError::TooLong { .. } => ErrorCode::FrameTooLong,
            FrameError::Malformed | FrameError::LeftOver(_) => ErrorCode::MalformedFrame,
        };
        End::Say(code, format!("The connection is closed: {error}."))
    }
}

impl From<ReadEnd> for End {
    fn from(end: ReadEnd) -> End {
        match end {
            ReadEnd::Closed => End::Gone,
            ReadEnd::Shutdown => End::Say(ErrorCode::ShuttingDown, "The bank is shutting down.".into()),
            ReadEnd::Idle => End::Say(
                ErrorCode::TimedOut,
                "The connection was silent for too long.".into(),
            ),
            ReadEnd::TooSlow => End::Say(ErrorCode::TimedOut, "A message took too long to arrive.".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use bank_core::bank_file::{CardSecurity, create_bank};
    use bank_core::protocol::{MAGIC, split};
    use bank_core::{Peppers, PinProfile};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::certificates::Authority;
    use crate::tls::TlsFiles;

    fn handler(directory: &std::path::Path) -> AtmHandler {
        let (path, now) = (directory.join("bank.db"), Moment::now());
        let peppers = Peppers::random().unwrap();
        let security = CardSecurity {
            profile: PinProfile::Fast,
            peppers: &peppers,
        };
        create_bank(&path, false, &security, now, &[], &[], &|_| ()).unwrap();
        let (authority, _) = Authority::open_or_create(directory, now.date).unwrap();
        let files = authority.certify_server(&["127.0.0.1".into()], 1, false).unwrap();
        let files = TlsFiles {
            cert: &files.certificate,
            key: &files.key,
            client_ca: None,
        };
        let service = Service {
            tls: Some(Tls::new(files).unwrap()),
            ..Service::on_loopback(1)
        };
        AtmHandler::new(Arc::new(Bank::open(&path, peppers).unwrap()), service)
    }

    #[tokio::test]
    async fn an_unknown_terminal_introduces_itself_from_this_machine_only() {
        let directory = tempfile::tempdir().unwrap();
        let handler = handler(directory.path());
        for (address, welcome) in [
            ("192.0.2.1:1", false),
            ("[2001:db8::1]:1", false),
            ("[::ffff:192.0.2.1]:1", false),
            ("127.0.0.1:1", true),
            ("[::ffff:127.0.0.2]:1", true),
            ("[::1]:1", true),
        ] {
            let (mut client, server) = tokio::io::duplex(1024);
            let mut hello = Vec::new();
            let said = Hello {
                magic: MAGIC,
                version: VERSION,
                terminal: "ATM-1",
                proof: Proof::None,
            };
            encode(&said, &mut hello);
            client.write_all(&hello).await.unwrap();
            client.shutdown().await.unwrap();
            let peer = Peer {
                address: address.parse().unwrap(),
                certificate: None,
            };
            let deadline = Instant::now() + HANDSHAKE_DEADLINE;
            let shutdown = CancellationToken::new();
            handler.converse(server, peer, deadline, &shutdown).await;
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            let (body, _) = split(&answer, MAX_REPLY_BYTES).unwrap().unwrap();
            let greeting: Greeting<'_> = decode(body).unwrap();
            assert_eq!(matches!(greeting, Greeting::Welcome { .. }), welcome, "{address}");
        }
    }

    /// The clock stands still but for the waits.
    #[tokio::test(start_paused = true)]
    async fn whoever_does_not_get_on_with_tls_is_put_out_at_the_deadline_of_the_handshake() {
        let directory = tempfile::tempdir().unwrap();
        let handler = handler(directory.path());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        // Nothing; the beginning of a record; a record that is announced and does not come.
        for begun in [&b""[..], &[0x16, 3], &[0x16, 3, 1, 1, 0, 1, 0, 0]] {
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (server, address) = listener.accept().await.unwrap();
            client.write_all(begun).await.unwrap();
            let start = Instant::now();
            handler.handle(server, address, CancellationToken::new()).await;
            assert_eq!(start.elapsed(), HANDSHAKE_DEADLINE, "{begun:?}");
        }
    }
}
