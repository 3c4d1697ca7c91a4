//! Frames, and the messages in them, on both sides.
//!
//! Nothing here panics, whatever comes; what is understood as a message means the same when it is written again, and is
//! then no longer than it was.

use std::fmt::Debug;

use bank_core::limits::{FRAME_HEADER_BYTES, MAX_REPLY_BYTES, MAX_REQUEST_BYTES};
use bank_core::protocol::{
    FrameError, Greeting, Hello, MAGIC, Reply, Request, VERSION, decode, encode, split,
};
use serde::{Deserialize, Serialize};

/// A stream of frames is the same frames wherever it is cut.
pub fn frames(mut stream: &[u8]) {
    loop {
        let whole = split(stream, MAX_REQUEST_BYTES);
        // How much must have come before it can be said what it is.
        let needed = match whole {
            Ok(Some((body, used))) => {
                assert_eq!(used, FRAME_HEADER_BYTES + body.len());
                assert!(body.len() <= MAX_REQUEST_BYTES);
                assert_eq!(body, &stream[FRAME_HEADER_BYTES..used]);
                used
            }
            Ok(None) => stream.len() + 1,
            Err(error) => {
                assert!(matches!(error, FrameError::TooLong { .. }), "{error}");
                FRAME_HEADER_BYTES
            }
        };
        // A little more tells what much more would: the rest is not looked at.
        for cut in 0..=stream.len().min(needed + 2) {
            let expected = if cut < needed { Ok(None) } else { whole };
            assert_eq!(split(&stream[..cut], MAX_REQUEST_BYTES), expected, "cut at {cut}");
        }
        match whole {
            Ok(Some((_, used))) => stream = &stream[used..],
            _ => return,
        }
    }
}

/// A client's first frame.
pub fn hello(body: &[u8]) {
    let body = at_most(body, MAX_REQUEST_BYTES);
    if let Ok(hello) = Hello::decode(body) {
        assert_eq!((hello.magic, hello.version), (MAGIC, VERSION));
        means_the_same(&hello, body, &mut Vec::new());
    }
}

/// A client's later frames.
pub fn request(body: &[u8]) {
    message::<Request<'_>>(at_most(body, MAX_REQUEST_BYTES), &mut Vec::new());
}

/// The server's first frame.
pub fn greeting(body: &[u8]) {
    message::<Greeting<'_>>(at_most(body, MAX_REPLY_BYTES), &mut Vec::new());
}

/// The server's later frames.
pub fn reply(body: &[u8]) {
    message::<Reply<'_>>(at_most(body, MAX_REPLY_BYTES), &mut Vec::new());
}

/// What a receiver with that limit would get to see of it.
fn at_most(body: &[u8], limit: usize) -> &[u8] {
    &body[..body.len().min(limit)]
}

fn message<'a, T: Serialize + Deserialize<'a> + PartialEq + Debug>(body: &'a [u8], again: &'a mut Vec<u8>) {
    if let Ok(message) = decode::<T>(body) {
        means_the_same(&message, body, again);
    }
}

/// That a message that was read from `body` is read from what is written of it, too.
fn means_the_same<'a, T>(message: &T, body: &[u8], again: &'a mut Vec<u8>)
where
    T: Serialize + Deserialize<'a> + PartialEq + Debug,
{
    encode(message, again);
    let again = &again[FRAME_HEADER_BYTES..];
    // A number may have been sent with more bytes than it needs, but is written with as few as do.
    assert!(again.len() <= body.len(), "{message:?} has grown");
    assert_eq!(decode::<T>(again).as_ref(), Ok(message));
}
