//! The bank server, as a library: what `atm-server` runs, and what tests and other programs can embed.
//!
//! [`serve::serve`] is the accept loop, generic over a [`serve::ClientHandler`]; [`atm_handler::AtmHandler`] is
//! the handler that speaks the native protocol; [`server::run`] puts a bank behind it.

pub mod admin;
pub mod args;
pub mod atm_handler;
mod blocking_work;
pub mod certificates;
pub mod commands;
pub mod config;
mod connection;
mod day_report;
pub mod log;
mod metrics;
mod pacing;
mod progress;
mod replies;
mod rows;
pub mod serve;
pub mod server;
mod service_manager;
mod session;
mod sessions;
pub mod settings;
pub mod shutdown;
pub mod tls;
mod to_wire;
pub mod watch;
