//! Files that a result brings back, and what was shown, written where the user wants them.
//!
//! Their names come from a program that nobody trusts, by way of a worker: each is checked again before anything is
//! written, and none may lead out of the folder, by its name or through a link.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, ensure};
use sandhog_common::blob::Blob;
use sandhog_common::files::check_names;
use sandhog_common::outcome::JobResult;

use super::displays;
use crate::exit::Exit;
use crate::fault::Fault;

/// Writes what was fetched below `folder`, over what is there.
///
/// # Errors
/// When a name cannot be meant, or a file cannot be written.
pub(crate) fn fetched(folder: &Path, result: &JobResult) -> Result<(), Fault> {
    save(folder, &result.files)
}

/// Writes what was fetched and what was shown below `folder`, over what is there.
///
/// # Errors
/// When a name cannot be meant, or a file cannot be written.
pub(crate) fn all(folder: &Path, result: &JobResult) -> Result<(), Fault> {
    fetched(folder, result)?;
    save(folder, &displays::files(result).collect())
}

fn save(folder: &Path, files: &BTreeMap<String, Blob>) -> Result<(), Fault> {
    let fault = |error: anyhow::Error| Fault::new(Exit::Fault, error);
    check_names(files).map_err(|error| fault(error.into()))?;
    for (name, data) in files {
        write(folder, name, &data.0)
            .with_context(|| format!("cannot save {name:?} in {}", folder.display()))
            .map_err(fault)?;
    }
    Ok(())
}

fn write(folder: &Path, name: &str, data: &[u8]) -> anyhow::Result<()> {
    let mut place = folder.to_owned();
    for part in name.split('/') {
        if place != folder {
            no_link(&place)?;
        }
        DirBuilder::new().recursive(true).create(&place)?;
        place.push(part);
    }
    no_link(&place)?;
    File::create(&place)?.write_all(data)?;
    Ok(())
}

fn no_link(place: &Path) -> anyhow::Result<()> {
    let link = place
        .symlink_metadata()
        .is_ok_and(|found| found.is_symlink());
    ensure!(!link, "{} is a link", place.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use sandhog_common::display::Display;
    use sandhog_common::outcome::Outcome;

    use super::*;

    fn result(name: &str) -> JobResult {
        JobResult {
            files: [(name.to_owned(), Blob::from("x"))].into(),
            ..JobResult::bare("a".parse().unwrap(), Outcome::Succeeded)
        }
    }

    #[test]
    fn files_land_in_the_folder_and_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        fetched(folder.path(), &result("a/b/c.txt")).unwrap();
        fetched(folder.path(), &result("a/b/c.txt")).unwrap();
        let written = std::fs::read(folder.path().join("a/b/c.txt")).unwrap();
        assert_eq!(written, b"x");
        assert!(fetched(folder.path(), &result("../up")).is_err());
        let link = |name| std::os::unix::fs::symlink(elsewhere.path(), folder.path().join(name));
        link("out").unwrap();
        assert!(fetched(folder.path(), &result("out/x")).is_err());
        assert!(fetched(folder.path(), &result("out")).is_err());
        assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0);

        let png = ("image/png".to_owned(), b"\x89PNG".to_vec());
        let shown = JobResult {
            displays: vec![Display::of([png]).unwrap()],
            ..result("d.txt")
        };
        fetched(folder.path(), &shown).unwrap();
        assert!(!folder.path().join("display-1.png").exists());
        all(folder.path(), &shown).unwrap();
        let written = std::fs::read(folder.path().join("display-1.png")).unwrap();
        assert_eq!(written, b"\x89PNG");
    }
}
