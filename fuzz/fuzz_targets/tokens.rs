#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| csrd_fuzz::tokens::check(data));
