//! Replies on their way: gathered until what they depend on is durable, and completed then with what is known only then.

use bank_core::limits::KEPT_REPLY_BYTES;
use bank_core::protocol::{HEAD_BYTES, Reply, ReplyBody, encode};
use bank_core::{Head, Lsn};

/// Receipts for which a connection keeps room: a customer waits for one, a program perhaps for some.
const KEPT_HEADS: usize = 4;

/// Whole frames that are to be written together.
#[derive(Default)]
pub(crate) struct Replies {
    /// The frames.
    pub(crate) bytes: Vec<u8>,
    /// Where in them heads of the hash chain belong, and of which rows.
    unsealed: Vec<(usize, Lsn)>,
}

impl Replies {
    /// Adds a reply. If there is a receipt in it, its head is yet to be filled in.
    pub(crate) fn add(&mut self, reply: &Reply<'_>) {
        encode(reply, &mut self.bytes);
        if let ReplyBody::Approved(_) | ReplyBody::Declined { .. } | ReplyBody::Reversed(_) = reply.body {
            // A receipt ends its message, and a head its receipt.
            self.unsealed
                .push((self.bytes.len() - HEAD_BYTES, Lsn::new(reply.lsn)));
        }
    }

    /// Fills in the heads, as far as `head_at` knows them. Gives a row of which it does not.
    pub(crate) fn seal(&mut self, head_at: impl Fn(Lsn) -> Option<Head>) -> Option<Lsn> {
        while let Some(&(place, lsn)) = self.unsealed.last() {
            let Some(head) = head_at(lsn) else {
                return Some(lsn);
            };
            self.bytes[place..place + HEAD_BYTES].copy_from_slice(&head.0);
            self.unsealed.pop();
        }
        None
    }

    /// After they were written: nothing is left, and little memory is kept.
    pub(crate) fn clear(&mut self) {
        debug_assert!(self.unsealed.is_empty(), "receipts are written with their heads");
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_REPLY_BYTES);
        self.unsealed.shrink_to(KEPT_HEADS);
    }
}
