//! Fuzzes `pepper-file`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| atm_tests::fuzz::files::pepper_file(bytes));
