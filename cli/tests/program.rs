//! Checks that the `sandhog` program starts.
//!
//! The suites that run the program are in the tests crate. This test is here because cargo builds
//! the programs of a package only for the integration tests of that package. Because of it, a test
//! run of the whole workspace builds a fresh `sandhog` for the suites.

use std::process::Command;

#[test]
fn the_program_knows_its_version() {
    let run = Command::new(env!("CARGO_BIN_EXE_sandhog"))
        .arg("--version")
        .output()
        .expect("the program starts");
    let want = format!("sandhog {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(String::from_utf8_lossy(&run.stdout), want);
}
