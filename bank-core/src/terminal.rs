//! A terminal: an ATM that the bank knows.

use crate::ids::TerminalId;
use crate::time::Timestamp;

/// A terminal as the bank file knows it. Its cash is a system account of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terminal {
    /// Its id.
    pub id: TerminalId,
    /// When the bank first saw it.
    pub registered: Timestamp,
}
