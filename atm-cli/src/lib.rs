//! The ATM terminal, as a library: the client that speaks to the bank, and what people and scripts do with it.

pub mod args;
pub mod client;
pub mod connection;
#[cfg(feature = "demo")]
pub mod demo;
pub mod dispenser;
pub mod electronic_journal;
#[cfg(test)]
mod fake_bank;
mod layout;
pub mod machine;
pub mod manual;
mod notices;
pub mod one_shot;
mod paper;
pub mod prompt;
mod screen;
pub mod supervisor;
pub mod terminal;
pub mod tls;
mod transport;
pub mod txn_ids;
mod words;
