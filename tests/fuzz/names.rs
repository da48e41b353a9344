//! Names of the files that a job brings, and patterns of the files that it fetches.

use sandhog_fuzz_bodies::names::{FileNames, file_name_seeds, pattern, pattern_seeds};

use crate::feed;

/// A name that is accepted can be created below a directory, and never outside of it.
#[test]
fn names() {
    let folder = FileNames::new();
    feed("names", &file_name_seeds(), |bytes| folder.check(bytes));
}

/// A pattern that is accepted can be matched with any name, quickly enough for 64 names.
#[test]
fn patterns() {
    feed("patterns", &pattern_seeds(), pattern);
}
