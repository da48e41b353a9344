//! The generated parts of `docs/reference/`: settings, commands, metrics.
//!
//! The tests of the suites `cli` and `queue` generate them, because the tests compare them with the
//! program. This module runs these tests, and in write mode sets the variable that makes them write
//! the pages.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

/// Tests that generate a part, as filters of the test runner. None of them needs a service.
const GENERATORS: [&str; 2] = ["docs::", "the_table_in_the_docs_is_the_list"];

/// Variable that makes the tests write instead of compare.
const WRITE_VARIABLE: &str = "SANDHOG_TEST_WRITE";

/// Writes all generated parts again.
pub(crate) fn write_docs(root: &Path) -> anyhow::Result<()> {
    run(root, |tests| tests.env(WRITE_VARIABLE, "1"))
}

/// Fails if a generated part is out of date.
pub(crate) fn check_docs(root: &Path) -> anyhow::Result<()> {
    run(root, |tests| tests.env_remove(WRITE_VARIABLE))
        .context("to write the pages again: cargo xtask docs")
}

fn run(root: &Path, mode: impl Fn(&mut Command) -> &mut Command) -> anyhow::Result<()> {
    // The same features as in scripts/test, so that nothing is compiled twice.
    let all = ["--quiet", "--locked", "--workspace", "--all-features"];
    let mut build = Command::new("cargo");
    build.arg("build").args(all).args(["--bin", "sandhog"]);
    let mut tests = Command::new("cargo");
    mode(&mut tests)
        .arg("test")
        .args(all)
        .args(["--test", "cli", "--test", "queue", "--"])
        .args(GENERATORS);
    for command in [&mut build, &mut tests] {
        let status = command.current_dir(root).status().context("run cargo")?;
        ensure!(status.success(), "cargo ended with {status}");
    }
    Ok(())
}
