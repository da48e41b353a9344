//! The properties of `sandhog_fuzz_bodies::wire`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sandhog_fuzz_bodies::wire::wire(bytes));
