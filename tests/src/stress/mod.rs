//! The stress harness: load on a server, what it took, and whether the money is all there.

mod arrivals;
pub mod bench;
pub mod check;
pub mod echo;
pub mod load;
pub mod peers;
mod plot;
mod recorder;
mod rounds;
pub mod run;
pub mod scale;
pub mod torture;
