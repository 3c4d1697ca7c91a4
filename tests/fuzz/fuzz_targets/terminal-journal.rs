//! Fuzzes `terminal-journal`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| atm_tests::fuzz::terminal_journal::bytes(bytes));
