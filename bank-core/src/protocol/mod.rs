//! The native protocol: what terminals and the server say to each other, byte by byte.
//!
//! A frame is a big-endian `u32` length and that many bytes of body; a body is one message in postcard's wire
//! format. `docs/PROTOCOL.md` is the same for people and for other languages, and the golden bytes in this
//! module's tests pin it. Enums and messages grow only at their ends.
//!
//! The types here are those of the wire: they carry numbers and texts as they were sent, and nothing in them
//! has been checked. They borrow from the frame, so that a PIN is not copied on its way to [`crate::Pin`].

mod error_code;
mod frame;
mod messages;

pub use error_code::ErrorCode;
pub use frame::{FrameError, decode, encode, split};
pub use messages::{
    CashTotal, Greeting, HEAD_BYTES, Hello, HelloError, MAGIC, NOTICE_ID, Proof, Receipt, Reply, ReplyBody,
    Request, RequestBody, Secret, StatementLine, VERSION,
};

#[cfg(test)]
mod golden;
