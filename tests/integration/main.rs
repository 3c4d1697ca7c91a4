//! The integration tests: the real programs, driven from outside, one module per topic.

mod admin;
mod attacks;
mod check;
mod commands;
mod concurrency;
mod crash;

mod exactly_once;
mod fault_vfs;
mod faults;
mod garbage;
mod house_rules;
mod logins;
mod machine;
mod menu;
mod one_shot;
mod peers;
mod poison;
mod readme;
mod scale;
mod second_client;
mod secrets;
mod shutdown;
mod stress;
mod terminals;
mod tls;
mod verify;
mod versions;
