//! The records of a terminal's journal: what a terminal writes down, and when.

use bank_core::{AccountId, Amount, Lsn, Money, TerminalId, TxnId};

use crate::dispenser::{Cassettes, Notes};

/// What a customer asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Cash to be handed out.
    Withdrawal,
    /// Cash put in.
    Deposit,
    /// Money moved to another customer; no cash.
    Transfer,
}

/// The bank's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was done.
    Approved,
    /// It was not, for the reason with this code of the protocol.
    Declined(u16),
}

/// How a transaction ended, after which nothing is open under its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// It was done, at the bank and here.
    Done,
    /// The bank declined it.
    Declined,
    /// The bank had done it and has undone it.
    Reversed,
    /// The bank never did it and never will.
    Never,
    /// The bank has credited what the terminal advised it of.
    Credited,
    /// The bank will not do what it should: people must.
    Refused,
}

/// One line of a terminal's journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The first record, and only the first.
    Opened {
        /// Whose journal it is.
        terminal: TerminalId,
        /// What is in the cassettes to begin with.
        cassettes: Cassettes,
    },
    /// Written before the bank is asked. A deposit's money is in the deposit box from here on.
    Intent {
        /// The transaction's id, above all before it.
        id: TxnId,
        /// The customer's account.
        account: AccountId,
        /// What is asked for.
        what: What,
        /// How much.
        amount: Amount,
        /// For a withdrawal the notes that are going to be handed out, otherwise [`Notes::default`].
        notes: Notes,
    },
    /// The bank has answered.
    Answered {
        /// The transaction.
        id: TxnId,
        /// What the bank said.
        outcome: Answer,
        /// In which row of its journal.
        lsn: Lsn,
    },
    /// Written before the first note moves.
    Dispensing {
        /// The withdrawal.
        id: TxnId,
        /// What is in the cassettes now.
        before: Notes,
        /// The notes that are going to move.
        notes: Notes,
    },
    /// The customer has taken all notes.
    Dispensed {
        /// The withdrawal.
        id: TxnId,
    },
    /// The money of a deposit that was not done was given back from the deposit box.
    Returned {
        /// The deposit.
        id: TxnId,
    },
    /// Written before the bank is told with an `Advice` to credit an account.
    Advised {
        /// The id of the advice: that of a deposit without an answer, or a new one.
        id: TxnId,
        /// The account to be credited.
        account: AccountId,
        /// How much.
        amount: Amount,
        /// The transaction whose money it is; may be `id` itself.
        original: TxnId,
    },
    /// Nothing is open under this id any more.
    Settled {
        /// The transaction or advice.
        id: TxnId,
        /// How it ended.
        how: Settlement,
        /// Why, for people; may be empty.
        note: String,
    },
    /// A supervisor has found how many notes of a dispense that was cut short really left.
    Decided {
        /// The withdrawal.
        id: TxnId,
        /// The notes that left.
        dispensed: Notes,
    },
    /// Notes were put into the cassettes.
    Replenished {
        /// How many into each.
        notes: Notes,
    },
    /// A supervisor who counted the cassettes has found fewer notes than there should be, and nothing that explains it.
    Missing {
        /// How many of each.
        notes: Notes,
    },
    /// The deposit box was emptied.
    Emptied {
        /// All that was in it.
        content: Money,
    },
    /// The day was closed.
    Closed {
        /// 1, 2, 3 …
        number: u32,
        /// The cash that came in less what went out, as the bank counts it.
        host_total: Money,
        /// The same as the terminal counts it.
        terminal_total: Money,
    },
}

impl Record {
    /// The record's name in the file.
    pub const fn step(&self) -> &'static str {
        match self {
            Record::Opened { .. } => "opened",
            Record::Intent { .. } => "intent",
            Record::Answered { .. } => "answered",
            Record::Dispensing { .. } => "dispensing",
            Record::Dispensed { .. } => "dispensed",
            Record::Returned { .. } => "returned",
            Record::Advised { .. } => "advised",
            Record::Settled { .. } => "settled",
            Record::Decided { .. } => "decided",
            Record::Replenished { .. } => "replenished",
            Record::Missing { .. } => "missing",
            Record::Emptied { .. } => "emptied",
            Record::Closed { .. } => "closed",
        }
    }
}
