//! The bank: accounts, cards, the journal, the bank file and the protocol.
//!
//! It is synchronous and knows no sockets and no async runtime. `ARCHITECTURE.md` shows the whole; begin
//! reading here at [`Bank`], and at [`transaction`] for the rules.
//!
//! Imports run one way: `limits, money, ids, time, files` ← `account, card, terminal, transaction, row` ←
//! `journal, bank_file` ← `ledger` ← `bank`. The [`protocol`] uses only ids, money, limits and the names of outcomes.

pub mod account;
pub mod action;
pub mod bank;
pub mod bank_file;
pub mod card;
mod cards;
pub mod certificates;
pub mod chain;
pub mod durable;
pub mod files;
pub mod ids;
pub mod interest;
#[cfg(all(test, feature = "shuttle"))]
mod interleavings;
pub mod journal;
pub mod ledger;
pub mod limits;
pub mod listing;
pub mod loading;
pub mod memory;
pub mod money;
pub mod operations;
pub mod pin;
pub mod protocol;
pub mod recent_ids;
pub mod row;
pub mod secret_file;
pub mod settling;
pub mod shared_cell;
mod sync;
pub mod terminal;
#[cfg(test)]
mod test_bank;
pub mod time;
pub mod transaction;
pub mod trial_balance;
mod weak_pin;

pub use account::Account;
pub use action::{Action, Instruction};
pub use bank::{Bank, Login, LoginError, Registration, TerminalError, TerminalProof};
pub use chain::Head;
pub use durable::JournalError;
pub use ids::{AccountId, ActionId, CardId, CardNumber, Lsn, TerminalId, TxnId};
pub use interest::{Period, Rate};
pub use ledger::{AccountHandle, Balance, Posted};
pub use money::{Amount, Currency, Money};
pub use operations::{OperationError, Performed, Unblocked};
pub use pin::{Peppers, Pin, PinProfile};
pub use row::{Kind, Outcome, Row};
pub use settling::{Fate, Repeat, SettlingError};
pub use shared_cell::SharedCell;
pub use terminal::{SecretHash, TerminalSecret};
pub use time::{BusinessDate, CutOver, Moment, Timestamp};
pub use transaction::{Decline, Order, Transaction};
