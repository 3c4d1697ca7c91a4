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

    /// Gives bytes that have come already; none: the bank has hung up. If nothing has come, it
    /// fails with [`WouldBlock`](io::ErrorKind::WouldBlock).
    pub(crate) fn read_without_waiting(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.socket.set_nonblocking(true)?;
        let read = match &mut self.tls {
            None => self.socket.read(bytes),
            Some(tls) => rustls::Stream::new(&mut **tls, &mut self.socket).read(bytes),
        };
        self.socket.set_nonblocking(false)?;
        read
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
