//! Names of the files that a job brings, and patterns of the files that it fetches.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use sandhog_core::blob::Blob;
use sandhog_core::files::{check_names, check_patterns};
use tempfile::TempDir;

/// Returns the bytes of these texts.
fn bytes_of<const COUNT: usize>(texts: [&str; COUNT]) -> Vec<Vec<u8>> {
    texts.map(|text| text.as_bytes().to_vec()).into()
}

/// Returns names of files, some of which are accepted.
#[must_use]
pub fn file_name_seeds() -> Vec<Vec<u8>> {
    bytes_of([
        "a.txt",
        "out/b/c.txt",
        "../a",
        "a/../../b",
        "./a",
        "/etc/passwd",
        "a//b",
        "é\u{0}",
    ])
}

/// A folder in which accepted names of files are created.
#[derive(Debug)]
pub struct FileNames {
    top: TempDir,
}

impl FileNames {
    /// Makes the folder. It is removed when the value is dropped.
    ///
    /// # Panics
    /// Panics if the folder cannot be made.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "making a folder is no default")]
    pub fn new() -> Self {
        Self {
            top: tempfile::tempdir().expect("a directory can be made"),
        }
    }

    /// Requires that a name that is accepted can be created below a directory, and never outside of
    /// it.
    ///
    /// # Panics
    /// Panics if the name is accepted and has another effect.
    pub fn check(&self, bytes: &[u8]) {
        let Ok(name) = std::str::from_utf8(bytes) else {
            return;
        };
        let files = BTreeMap::from([(name.to_owned(), Blob::default())]);
        if check_names(&files).is_err() {
            return;
        }
        let below = Path::new(name)
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        assert!(below, "let through: {name:?}");
        let work = self.top.path().join("work");
        let path = work.join(name);
        let folder = path.parent().expect("it has one at least");
        std::fs::create_dir_all(folder).expect("a name that was let through can be made");
        std::fs::write(&path, b"").expect("a name that was let through can be made");
        let beside: Vec<_> = std::fs::read_dir(self.top.path())
            .expect("the directory can be listed")
            .map(|entry| entry.expect("the directory can be listed").file_name())
            .collect();
        assert_eq!(beside, ["work"]);
        std::fs::remove_dir_all(&work).expect("what was made can be removed");
    }
}

/// Returns patterns, some of which are accepted.
#[must_use]
pub fn pattern_seeds() -> Vec<Vec<u8>> {
    bytes_of([
        "*.png",
        "out/**",
        "{a,b}*/[!c]?",
        "**/**/**/*a*b*c",
        "[",
        "{",
        "\\",
        "{{{,},},}",
    ])
}

/// Requires that a pattern that is accepted can be matched with any name, quickly enough for 64
/// names.
pub fn pattern(bytes: &[u8]) {
    let Ok(pattern) = std::str::from_utf8(bytes) else {
        return;
    };
    if check_patterns(&[pattern.to_owned()]).is_err() {
        return;
    }
    for name in [
        "a",
        "out/b/c.png",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "",
        "é/[",
        "a/b/c/d/e/f/g/h/i/j",
    ] {
        // Either result is correct; the match must neither panic nor hang.
        std::hint::black_box(fast_glob::glob_match(pattern, name));
    }
}
