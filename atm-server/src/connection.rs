//! One connection's bytes: a bounded read buffer, gathered replies, and deadlines.

use std::io;
use std::pin::Pin;

use bank_core::limits::{CLOSE_LINGER, IDLE_DEADLINE, READ_BUFFER_BYTES, REQUEST_DEADLINE, WRITE_DEADLINE};
use bank_core::protocol::{self, FrameError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroize;

use crate::replies::Replies;

/// A client's byte stream, as frames.
pub(crate) struct Connection<S> {
    stream: S,
    /// What was received and not yet taken is at `taken..filled`. The buffer never grows or moves, so a PIN in
    /// it is in one place and can be overwritten.
    received: Box<[u8]>,
    taken: usize,
    filled: usize,
    /// Whole frames that are to be written together.
    pub(crate) replies: Replies,
    /// One timer for all waits. It is moved only when it goes off too early, so that a busy connection does not
    /// rearm it for every request.
    timer: Pin<Box<Sleep>>,
    /// When the first bytes of a request were read that is not whole yet.
    begun: Option<Instant>,
}

/// Why reading gave no bytes.
#[derive(Debug)]
pub(crate) enum ReadEnd {
    /// The client is gone, or the connection broke.
    Closed,
    /// The server is to stop.
    Shutdown,
    /// The client was silent for too long.
    Idle,
    /// The client did not get on with its request.
    TooSlow,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(crate) fn new(stream: S) -> Connection<S> {
        Connection {
            stream,
            received: vec![0; READ_BUFFER_BYTES].into_boxed_slice(),
            taken: 0,
            filled: 0,
            replies: Replies::default(),
            timer: Box::pin(sleep_until(Instant::now() + IDLE_DEADLINE)),
            begun: None,
        }
    }

    /// Lets `look` see the next frame's body, if it is whole; then the frame is taken and overwritten.
    pub(crate) fn take_frame<R>(
        &mut self,
        limit: usize,
        look: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>, FrameError> {
        let Some((body, used)) = protocol::split(&self.received[self.taken..self.filled], limit)? else {
            return Ok(None);
        };
        let seen = look(body);
        self.received[self.taken..self.taken + used].zeroize();
        self.taken += used;
        self.begun = None;
        if self.taken == self.filled {
            (self.taken, self.filled) = (0, 0);
        }
        Ok(Some(seen))
    }

    /// Reads what the client has sent, at least one byte. A frame that has begun must come on within
    /// [`REQUEST_DEADLINE`].
    pub(crate) async fn read(&mut self, shutdown: &CancellationToken) -> Result<(), ReadEnd> {
        if self.taken > 0 {
            // The rest of a frame moves to the front; what it leaves behind may be half of a PIN.
            let rest = self.taken..self.filled;
            let length = rest.len();
            self.received.copy_within(rest, 0);
            self.received[length..self.filled].zeroize();
            (self.taken, self.filled) = (0, length);
        }
        let now = Instant::now();
        let deadline = if self.filled == 0 {
            self.begun = None;
            now + IDLE_DEADLINE
        } else {
            *self.begun.get_or_insert(now) + REQUEST_DEADLINE
        };
        self.read_until(deadline, shutdown).await
    }

    /// Reads at least one byte before `deadline`.
    pub(crate) async fn read_until(
        &mut self,
        deadline: Instant,
        shutdown: &CancellationToken,
    ) -> Result<(), ReadEnd> {
        if deadline < self.timer.deadline() {
            self.timer.as_mut().reset(deadline);
        }
        loop {
            tokio::select! {
                biased;
                read = self.stream.read(&mut self.received[self.filled..]) => {
                    return match read {
                        Ok(0) | Err(_) => Err(ReadEnd::Closed),
                        Ok(bytes) => {
                            self.filled += bytes;
                            Ok(())
                        }
                    };
                }
                () = shutdown.cancelled() => return Err(ReadEnd::Shutdown),
                // Whatever the stream has used up of this task's turn: TLS may go through much that is none of the client's words.
                () = unconstrained(self.timer.as_mut()) => {
                    if Instant::now() >= deadline {
                        return Err(if self.filled == 0 { ReadEnd::Idle } else { ReadEnd::TooSlow });
                    }
                    self.timer.as_mut().reset(deadline);
                }
            }
        }
    }

    /// Writes the gathered replies.
    pub(crate) async fn write_replies(&mut self) -> io::Result<()> {
        if self.replies.bytes.is_empty() {
            return Ok(());
        }
        let write = async {
            self.stream.write_all(&self.replies.bytes).await?;
            // What TLS has taken and not yet sent.
            self.stream.flush().await
        };
        timeout(WRITE_DEADLINE, write)
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the client does not take its replies"))??;
        self.replies.clear();
        Ok(())
    }

    /// Writes the gathered replies and says that there will be no more. Then it waits a little for the client
    /// to close: closing while unread bytes lie here would reset the connection, and take from the client what
    /// it has not read yet.
    pub(crate) async fn finish(mut self) {
        if self.write_replies().await.is_err() {
            return;
        }
        // TLS says goodbye, which takes room for it, too.
        if !matches!(timeout(WRITE_DEADLINE, self.stream.shutdown()).await, Ok(Ok(()))) {
            return;
        }
        let drain = async { while matches!(self.stream.read(&mut self.received).await, Ok(1..)) {} };
        let _ = timeout(CLOSE_LINGER, drain).await;
    }
}

impl<S> Drop for Connection<S> {
    fn drop(&mut self) {
        self.received.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bank_core::limits::MAX_REQUEST_BYTES;
    use tokio::io::duplex;

    #[tokio::test]
    async fn frames_come_out_however_they_were_cut_and_leave_nothing_behind() {
        let (mut client, server) = duplex(64);
        let mut connection = Connection::new(server);
        let shutdown = CancellationToken::new();
        let mut sent = Vec::new();
        for word in ["first", "2468", "last"] {
            protocol::encode(&word, &mut sent);
        }
        let sending = tokio::spawn(async move {
            for chunk in sent.chunks(7) {
                client.write_all(chunk).await.unwrap();
                tokio::task::yield_now().await;
            }
            client
        });
        let mut words = Vec::new();
        while words.len() < 3 {
            let word = connection.take_frame(MAX_REQUEST_BYTES, |body| {
                protocol::decode::<&str>(body).unwrap().to_owned()
            });
            match word.unwrap() {
                Some(word) => words.push(word),
                None => connection.read(&shutdown).await.unwrap(),
            }
        }
        assert_eq!(words, ["first", "2468", "last"]);
        assert!(
            connection.received.iter().all(|&byte| byte == 0),
            "what was taken was overwritten"
        );
        drop(sending.await.unwrap());
        assert!(matches!(connection.read(&shutdown).await, Err(ReadEnd::Closed)));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_and_dripping_end() {
        let (mut client, server) = duplex(64);
        let mut connection = Connection::new(server);
        let shutdown = CancellationToken::new();
        let start = Instant::now();
        assert!(matches!(connection.read(&shutdown).await, Err(ReadEnd::Idle)));
        assert_eq!(start.elapsed().as_secs(), IDLE_DEADLINE.as_secs());

        let dripping = tokio::spawn(async move {
            while client.write_all(&[0]).await.is_ok() {
                tokio::time::sleep(REQUEST_DEADLINE / 2).await;
            }
        });
        let start = Instant::now();
        // The four bytes of a length would take longer than a request may.
        let end = loop {
            if let Err(end) = connection.read(&shutdown).await {
                break end;
            }
        };
        assert!(matches!(end, ReadEnd::TooSlow), "{end:?}");
        assert_eq!(start.elapsed(), REQUEST_DEADLINE);
        drop(connection);
        dripping.await.unwrap();
    }
}
