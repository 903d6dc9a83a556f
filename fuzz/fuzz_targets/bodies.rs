#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| csrd_fuzz::bodies::check(data));
