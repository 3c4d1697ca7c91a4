//! A bare tokio server that answers every frame with a frame: the limit of what any server with these frames can do.
//!
//! It has the same frames, reply sizes, `TCP_NODELAY` and number of worker threads as the bank server, and
//! gathers the replies to all requests that it finds in its buffer into one write, as the bank does. It keeps
//! nothing, knows nothing, and waits for no disk.

use bank_core::limits::{MAX_REQUEST_BYTES, READ_BUFFER_BYTES};
use bank_core::protocol::{Greeting, Receipt, Reply, ReplyBody, VERSION, encode, split};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Serves on a free loopback port, which it names on standard output as the bank server does, until it is killed.
///
/// # Errors
/// If there is no port.
pub fn serve() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
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

/// An answer that a deposit to a bank with some history would get.
fn typical_reply() -> Vec<u8> {
    let receipt = Receipt {
        txn_id: [7; 16],
        time: 1_795_219_200_000,
        amount: 100,
        balance: 123_456,
        currency: *b"USD",
    };
    let mut frame = Vec::new();
    encode(
        &Reply {
            id: 1,
            lsn: 1_000_000,
            body: ReplyBody::Approved(receipt),
        },
        &mut frame,
    );
    frame
}

async fn echo(mut stream: TcpStream) -> Option<()> {
    let mut received = vec![0; READ_BUFFER_BYTES];
    let mut filled = 0;
    let mut replies = Vec::new();
    let reply = typical_reply();
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
                replies.extend_from_slice(&reply);
                // The request's id, which takes one byte in this harness.
                let id = replies.len() - reply.len() + 4;
                replies[id] = *body.first()?;
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
