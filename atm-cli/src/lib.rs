//! The ATM terminal, as a library: the client that speaks to the bank, and the commands built on it.

pub mod args;
pub mod client;
pub mod one_shot;
