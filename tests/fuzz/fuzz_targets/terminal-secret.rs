//! Fuzzes `terminal-secret`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| atm_tests::fuzz::files::terminal_secret(bytes));
