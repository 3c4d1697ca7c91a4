//! The integration tests: the real programs, driven from outside, one module per topic.

mod commands;
mod concurrency;
mod crash;
mod fault_vfs;
mod faults;
mod garbage;
mod one_shot;
mod poison;
mod secrets;
mod shutdown;
mod verify;
