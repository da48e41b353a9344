//! A fake NVML library with two GPUs, compiled for a test, and the file through which a test makes
//! the GPUs fail.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::environment;

/// The first GPU's uuid: an H100 with 80 GiB.
pub const H100: &str = "GPU-00000000-aaaa-bbbb-cccc-000000000000";

/// The second GPU's uuid: a T4 with 16 GiB.
pub const T4: &str = "GPU-11111111-aaaa-bbbb-cccc-111111111111";

/// A fake of NVIDIA's management library. Its files are removed on drop.
#[derive(Debug)]
pub struct FakeNvml {
    folder: TempDir,
}

impl FakeNvml {
    /// Compiles the complete library.
    #[must_use]
    pub fn build() -> Self {
        Self::without(&[])
    }

    /// Compiles the library without some of its calls: names that its source checks with `#ifndef`.
    ///
    /// # Panics
    /// Panics if there is no C compiler or it fails.
    #[must_use]
    pub fn without(calls: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let this = Self { folder };
        std::fs::write(this.state(), "").expect("a temporary file can be written");
        let compiled = Command::new("cc")
            .args([
                "-shared",
                "-fPIC",
                "-O1",
                "-Wall",
                "-Werror",
                "-Wno-unused",
                "-o",
            ])
            .arg(this.library())
            .args(calls.iter().map(|call| format!("-D{call}")))
            .arg(environment::checkout().join("tests/gpu/nvml.c"))
            .output()
            .expect("there is a C compiler: Rust needs one to link");
        let said = String::from_utf8_lossy(&compiled.stderr);
        assert!(compiled.status.success(), "{said}");
        this
    }

    /// Returns the path of the library.
    #[must_use]
    pub fn library(&self) -> PathBuf {
        self.folder.path().join("libnvidia-ml.so.1")
    }

    /// Returns the path of the library as the text of a setting.
    ///
    /// # Panics
    /// Panics if the temporary folder's name is not text.
    #[must_use]
    pub fn setting(&self) -> String {
        let library = self.library();
        let text = library.to_str();
        text.expect("temporary folders have plain names").to_owned()
    }

    /// Returns the path of the file that lists which GPU has which fault.
    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Sets the faults from now on, for example `0 lost`.
    ///
    /// # Panics
    /// Panics if the file cannot be written.
    pub fn set_faults(&self, what: &str) {
        // Replaces the file in one step, so that a reader never reads half of it.
        let half: &Path = &self.folder.path().join("half");
        std::fs::write(half, what).expect("a temporary file can be written");
        std::fs::rename(half, self.state()).expect("a temporary file can be renamed");
    }
}
