//! The ATM terminal, as a library: the client that speaks to the bank, and what people and scripts do with it.

pub mod args;
pub mod client;
#[cfg(feature = "demo")]
pub mod demo;
pub mod dispenser;
pub mod electronic_journal;
pub mod one_shot;
pub mod prompt;
pub mod terminal;
mod words;
