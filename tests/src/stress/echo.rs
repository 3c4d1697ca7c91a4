//! A bare tokio server that answers every frame with a frame: the limit of what any server with these frames can do.
//!
//! It has the same frames, reply sizes, `TCP_NODELAY` and number of worker threads as the bank server, and
//! gathers the replies to all requests that it finds in its buffer into one write, as the bank does. It keeps
//! nothing, knows nothing, and waits for no disk.

use std::num::NonZeroUsize;
use std::process::Command;

use atm_server::config::default_workers;
use bank_core::limits::{FRAME_HEADER_BYTES, MAX_REQUEST_BYTES, READ_BUFFER_BYTES};
use bank_core::protocol::{
    Greeting, HEAD_BYTES, Receipt, Reply, ReplyBody, Request, RequestBody, VERSION, encode, split,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::{Server, program};

/// Serves on a free loopback port, which it names on standard output as the bank server does, until it is killed; with as many
/// worker threads as the bank server has by default, or with so many.
///
/// # Errors
/// If there is no port.
pub fn serve(workers: Option<NonZeroUsize>) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(workers.map_or_else(default_workers, NonZeroUsize::get))
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("listening on {}", listener.local_addr()?);
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(echo(stream));
        }
    })
}

/// Starts one as a process of its own, with so many worker threads or as many as [`serve`] says.
pub fn start(workers: Option<NonZeroUsize>) -> Server {
    let mut echo = Command::new(program("atm-stress"));
    echo.arg("echo");
    if let Some(workers) = workers {
        echo.args(["--workers", &workers.to_string()]);
    }
    Server::start(echo)
}

/// Answers that a bank with some history would give.
struct Replies {
    to_balance: Vec<u8>,
    to_all_else: Vec<u8>,
    /// What a request for a balance has where its kind is.
    balance_kind: u8,
}

/// Where a frame's correlation id is, which takes one byte in this harness. After it comes the kind of the request.
const ID: usize = FRAME_HEADER_BYTES;

impl Replies {
    fn typical() -> Replies {
        let frame = |body| {
            let mut frame = Vec::new();
            let (id, lsn) = (1, 1_000_000);
            encode(&Reply { id, lsn, body }, &mut frame);
            frame
        };
        let receipt = Receipt {
            txn_id: [7; 16],
            time: 1_795_219_200_000,
            amount: 100,
            balance: 123_456,
            currency: *b"USD",
            head: [7; HEAD_BYTES],
        };
        let balance = ReplyBody::Balance {
            balance: receipt.balance,
            currency: receipt.currency,
        };
        let mut request = Vec::new();
        let body = RequestBody::Balance;
        encode(&Request { id: 1, body }, &mut request);
        Replies {
            to_balance: frame(balance),
            to_all_else: frame(ReplyBody::Approved(receipt)),
            balance_kind: request[ID + 1],
        }
    }

    fn to(&self, request: &[u8], out: &mut Vec<u8>) -> Option<()> {
        let reply = match request.get(1)? {
            &kind if kind == self.balance_kind => &self.to_balance,
            _ => &self.to_all_else,
        };
        let start = out.len();
        out.extend_from_slice(reply);
        out[start + ID] = request[0];
        Some(())
    }
}

async fn echo(mut stream: TcpStream) -> Option<()> {
    let mut received = vec![0; READ_BUFFER_BYTES];
    let mut filled = 0;
    let mut replies = Vec::new();
    let typical = Replies::typical();
    let mut introduced = false;
    loop {
        let bytes = stream
            .read(&mut received[filled..])
            .await
            .ok()
            .filter(|&bytes| bytes > 0)?;
        filled += bytes;
        let mut taken = 0;
        while let Some((body, used)) = split(&received[taken..filled], MAX_REQUEST_BYTES).ok()? {
            if introduced {
                typical.to(body, &mut replies)?;
            } else {
                introduced = true;
                let welcome = Greeting::Welcome {
                    version: VERSION,
                    server_time: 0,
                    max_request_bytes: MAX_REQUEST_BYTES as u32,
                    max_reply_bytes: 0,
                };
                encode(&welcome, &mut replies);
            }
            taken += used;
        }
        received.copy_within(taken..filled, 0);
        filled -= taken;
        stream.write_all(&replies).await.ok()?;
        replies.clear();
    }
}
