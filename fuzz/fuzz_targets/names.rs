//! The properties of `sandhog_fuzz_bodies::names`.

#![no_main]

use std::sync::LazyLock;

use sandhog_fuzz_bodies::names::{FileNames, pattern};

static FILE_NAMES: LazyLock<FileNames> = LazyLock::new(FileNames::new);

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    FILE_NAMES.check(bytes);
    pattern(bytes);
});
