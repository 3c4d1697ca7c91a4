//! The bytes of a connection: TCP, with TLS over it or without. Every wait ends by the deadline that it is given, however
//! the bytes drip; but for that of the operating system for an address, when a server is called by its name.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use bank_core::limits::CONNECT_DEADLINE;
use rustls::ClientConnection;

use crate::tls::Privacy;

/// Why there is no stream of bytes.
#[derive(Debug)]
pub(crate) enum ConnectError {
    /// Nobody answers.
    Unreachable(io::Error),
    /// It would not be private, so nobody was asked.
    NotPrivate(String),
}

/// A stream of bytes to and from the bank.
#[derive(Debug)]
pub(crate) struct Transport {
    socket: TcpStream,
    tls: Option<Box<ClientConnection>>,
}

impl Transport {
    /// Connects to the first address of `server`, a host and a port, that answers; by TLS, the handshake is only begun
    /// then.
    pub(crate) fn connect(
        server: &str,
        privacy: &Privacy,
        deadline: Instant,
    ) -> Result<Transport, ConnectError> {
        let tls = match privacy {
            Privacy::Tls(tls) => {
                let begun = tls.connection(server);
                Some(Box::new(
                    begun.map_err(|error| ConnectError::NotPrivate(error.to_string()))?,
                ))
            }
            Privacy::Loopback | Privacy::Nothing => None,
        };
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in server.to_socket_addrs().map_err(ConnectError::Unreachable)? {
            if matches!(privacy, Privacy::Loopback) && !address.ip().to_canonical().is_loopback() {
                let why = "everybody on the way could read PINs: give --tls-ca, and TLS is spoken";
                return Err(ConnectError::NotPrivate(why.into()));
            }
            match connect_to(&address, deadline) {
                Ok(socket) => return Ok(Transport { socket, tls }),
                Err(error) => last = error,
            }
        }
        Err(ConnectError::Unreachable(last))
    }

    /// Writes all of it.
    pub(crate) fn write_all(&mut self, bytes: &[u8], deadline: Instant) -> io::Result<()> {
        let mut socket = Timed {
            socket: &self.socket,
            deadline,
        };
        match &mut self.tls {
            None => socket.write_all(bytes),
            Some(tls) => {
                let mut stream = rustls::Stream::new(&mut **tls, &mut socket);
                stream.write_all(bytes)?;
                stream.flush()
            }
        }
    }

    /// Waits for some bytes; none: the bank has hung up.
    pub(crate) fn read(&mut self, bytes: &mut [u8], deadline: Instant) -> io::Result<usize> {
        let mut socket = Timed {
            socket: &self.socket,
            deadline,
        };
        match &mut self.tls {
            None => socket.read(bytes),
            Some(tls) => rustls::Stream::new(&mut **tls, &mut socket).read(bytes),
        }
    }

    /// Whether the bank has neither said anything that was not read yet nor hung up.
    pub(crate) fn is_quiet(&mut self) -> bool {
        let looked = self
            .socket
            .set_nonblocking(true)
            .and_then(|()| self.looks_quiet());
        self.socket.set_nonblocking(false).is_ok() && looked.unwrap_or(false)
    }

    fn looks_quiet(&mut self) -> io::Result<bool> {
        let would_block = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
        let Some(tls) = &mut self.tls else {
            return Ok(self.socket.peek(&mut [0]).is_err_and(|error| would_block(&error)));
        };
        loop {
            match tls.read_tls(&mut self.socket) {
                // Without a goodbye, as a server ends that was killed.
                Ok(0) => return Ok(false),
                Ok(_) => {}
                Err(error) if would_block(&error) => return Ok(true),
                Err(error) => return Err(error),
            }
            let state = tls.process_new_packets().map_err(io::Error::other)?;
            if state.plaintext_bytes_to_read() > 0 || state.peer_has_closed() {
                return Ok(false);
            }
        }
    }
}

/// A socket on which no single read or write waits beyond a deadline.
struct Timed<'a> {
    socket: &'a TcpStream,
    deadline: Instant,
}

impl Read for Timed<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.socket.set_read_timeout(Some(left_until(self.deadline)?))?;
        self.socket.read(bytes).map_err(timed_out)
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.set_write_timeout(Some(left_until(self.deadline)?))?;
        self.socket.write(bytes).map_err(timed_out)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The operating system says that it would block when the time that a socket was given is over.
fn timed_out(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
        _ => error,
    }
}

fn connect_to(address: &SocketAddr, deadline: Instant) -> io::Result<TcpStream> {
    let timeout = left_until(deadline)?.min(CONNECT_DEADLINE);
    let socket = TcpStream::connect_timeout(address, timeout)?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// What is left until the deadline: more than nothing, for a timeout of nothing would be none at all.
fn left_until(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(left)
}
