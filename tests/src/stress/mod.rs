//! The stress harness: load on a server, what it took, and whether the money is all there.

pub mod bench;
pub mod echo;
pub mod load;
pub mod opening;
pub mod run;
pub mod torture;
