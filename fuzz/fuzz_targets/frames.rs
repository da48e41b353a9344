//! The properties of `sandhog_fuzz_bodies::frames`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sandhog_fuzz_bodies::frames::frames(bytes));
