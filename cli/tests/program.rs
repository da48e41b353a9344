//! The program is there and answers.
//!
//! The suites that run it are in the tests crate. This one stands here because cargo builds a package's programs only
//! for that package's own integration tests: so whoever tests the whole workspace has a fresh `sandhog` for the suites.

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
