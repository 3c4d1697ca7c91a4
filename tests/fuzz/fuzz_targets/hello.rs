//! Fuzzes `hello`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| atm_tests::fuzz::messages::hello(bytes));
