//! The worker whose jobs do nothing.

use std::path::PathBuf;

use anyhow::{Context, ensure};

/// Returns the path of the worker whose jobs do nothing, of the same build as this program.
pub(crate) fn noop_worker() -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe()
        .context("a running program has a path")?
        .with_file_name("sandhog-noop-worker");
    ensure!(
        path.exists(),
        "{} does not exist; scripts/bench and scripts/chaos build it",
        path.display()
    );
    Ok(path)
}
