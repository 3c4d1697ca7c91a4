//! The bytes of a connection: TCP, with TLS over it or without. Every wait ends by the deadline that it is given, however
//! the bytes drip.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use bank_core::limits::CONNECT_DEADLINE;
use rustls::ClientConnection;

use crate::tls::Privacy;

/// A stream of bytes to and from the bank.
#[derive(Debug)]
pub(crate) struct Transport {
    socket: TcpStream,
    tls: Option<Box<ClientConnection>>,
}

impl Transport {
    /// Connects to the first address of `server`, a host and a port, that answers; by TLS, the handshake is only begun
    /// then.
    pub(crate) fn connect(server: &str, privacy: &Privacy, deadline: Instant) -> io::Result<Transport> {
        let tls = match privacy {
            Privacy::Tls(tls) => Some(Box::new(tls.connection(server)?)),
            Privacy::Loopback | Privacy::Nothing => None,
        };
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in server.to_socket_addrs()? {
            if matches!(privacy, Privacy::Loopback) && !address.ip().to_canonical().is_loopback() {
                last = io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "everybody on the way there could read PINs: give --tls-ca, and TLS is spoken",
                );
                continue;
            }
            match connect_to(&address, deadline) {
                Ok(socket) => return Ok(Transport { socket, tls }),
                Err(error) => last = error,
            }
        }
        Err(last)
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
        let quiet = |transport: &mut Transport| match &mut transport.tls {
            None => {
                let peeked = transport.socket.peek(&mut [0]);
                Ok(peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock))
            }
            Some(tls) => {
                match tls.read_tls(&mut transport.socket) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                    Ok(_) => {}
                }
                let state = tls.process_new_packets().map_err(io::Error::other)?;
                Ok(state.plaintext_bytes_to_read() == 0 && !state.peer_has_closed())
            }
        };
        self.socket.set_nonblocking(true).is_ok()
            && quiet(self).unwrap_or(false)
            && self.socket.set_nonblocking(false).is_ok()
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
