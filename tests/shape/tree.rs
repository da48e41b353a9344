//! The files of the checkout.

use std::fs;
use std::path::{Path, PathBuf};

use sandhog_testkit::environment::checkout;

/// Returns every file of the checkout except build output and version control.
pub(crate) fn files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![checkout().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the checkout can be read") {
            let path = entry.expect("the checkout can be read").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            match (path.is_dir(), name.as_ref()) {
                (true, "target" | ".git" | "__pycache__" | "node_modules" | "snapshots") => {}
                (true, _) => folders.push(path),
                (false, _) => found.push(path),
            }
        }
    }
    found.sort();
    found
}

/// Returns the text of a file.
pub(crate) fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns a path relative to the checkout.
pub(crate) fn relative(path: &Path) -> String {
    let relative = path.strip_prefix(checkout()).unwrap_or(path);
    relative.display().to_string()
}

/// Returns whether a file has one of these extensions.
pub(crate) fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    let extension = path.extension().unwrap_or_default();
    extensions.iter().any(|known| extension == *known)
}

/// Returns the folders of the workspace's crates, relative to the checkout.
pub(crate) fn members() -> Vec<String> {
    files()
        .iter()
        .filter(|path| path.ends_with("Cargo.toml"))
        .map(|path| relative(path.parent().expect("a file has a folder")))
        .filter(|folder| !folder.is_empty())
        .collect()
}
