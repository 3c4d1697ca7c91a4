//! Fuzzes `accounts-list`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| atm_tests::fuzz::list::accounts_list(bytes));
