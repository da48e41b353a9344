//! sandhog
fn main() {}
