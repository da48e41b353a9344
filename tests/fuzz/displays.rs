//! Displays of programs, and displays in results from elsewhere.

use sandhog_fuzz_bodies::displays::{display_seeds, displays};

use crate::feed;

#[test]
fn displays_are_read_as_they_were_shown() {
    feed("displays", &display_seeds(), displays);
}
