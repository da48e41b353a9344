//! The private directory in which a worker keeps the sockets of its keepers, and the removal of
//! directories that dead workers left.
//!
//! A worker locks its directory. The kernel ends the lock with the process, so a directory whose
//! lock can be taken belongs to no living worker.

use std::fs::{DirBuilder, File, Metadata, TryLockError, symlink_metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::sandbox::SandboxError;

/// First part of the directory's name. No other directory of Sandhog begins with it.
const PREFIX: &str = "sandhog-keepers-";

/// Maximum length of the path of the directory, in bytes. The kernel limits the path of a socket to
/// 107 bytes.
const MAX_DIR_BYTES: usize = 80;

/// Number of attempts to make a directory that no other worker removes before it is locked.
const ATTEMPTS: u32 = 8;

/// A directory that only this user can enter. Dropping the value removes it.
#[derive(Debug)]
pub(super) struct SocketDir {
    path: PathBuf,
    /// The directories in which workers make such directories.
    parents: Vec<PathBuf>,
    /// The user that owns the directory: that of this process.
    user: u32,
    /// The locked directory.
    _lock: File,
}

impl SocketDir {
    /// Makes a directory in the first of `parents` that permits it.
    ///
    /// # Errors
    /// [`SandboxError::SocketDirectory`] if none permits it.
    pub(super) fn new(parents: &[PathBuf]) -> Result<Self, SandboxError> {
        let mut failure = None;
        for parent in parents {
            match Self::new_in(parent) {
                Ok(mut made) => {
                    made.parents = parents.to_vec();
                    return Ok(made);
                }
                Err(source) => failure = Some((parent.clone(), source)),
            }
        }
        let (path, source) = failure.unwrap_or_else(|| {
            let source = io::ErrorKind::NotFound.into();
            (PathBuf::new(), source)
        });
        Err(SandboxError::SocketDirectory { path, source })
    }

    fn new_in(parent: &Path) -> io::Result<Self> {
        for _ in 0..ATTEMPTS {
            let path = parent.join(format!("{PREFIX}{:016x}", rand::random::<u64>()));
            if path.as_os_str().len() > MAX_DIR_BYTES {
                let reason = format!("{} is too long for a socket", path.display());
                return Err(io::Error::new(io::ErrorKind::InvalidFilename, reason));
            }
            DirBuilder::new().mode(0o700).create(&path)?;
            if let Some(made) = Self::lock(path)? {
                return Ok(made);
            }
        }
        let reason = format!("other workers removed {ATTEMPTS} new directories");
        Err(io::Error::new(io::ErrorKind::ResourceBusy, reason))
    }

    /// Locks a directory. Returns `None` if another worker has locked it, or has removed it.
    fn lock(path: PathBuf) -> io::Result<Option<Self>> {
        let directory = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        match directory.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // The directory may have been removed between its opening and its locking.
        let locked = directory.metadata()?;
        let is_there = symlink_metadata(&path).is_ok_and(|found| is_same(&found, &locked));
        Ok(is_there.then_some(Self {
            path,
            parents: Vec::new(),
            user: locked.uid(),
            _lock: directory,
        }))
    }

    /// The path of the directory.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the directories of this user's dead workers, from each of the parents.
    pub(super) fn remove_abandoned(&self) {
        for parent in &self.parents {
            remove_abandoned_in(parent, self.user);
        }
    }
}

impl Drop for SocketDir {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

fn remove_abandoned_in(parent: &Path, user: u32) {
    // A directory that cannot be read has none of ours.
    let Ok(entries) = std::fs::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        let is_named = entry.file_name().to_string_lossy().starts_with(PREFIX);
        // The metadata of the entry itself: other users may place links in such a directory.
        let is_own = entry
            .metadata()
            .is_ok_and(|found| found.is_dir() && found.uid() == user);
        if !is_named || !is_own {
            continue;
        }
        match SocketDir::lock(entry.path()) {
            Ok(Some(abandoned)) => {
                let path = abandoned.path.display();
                tracing::info!(%path, "directory of a dead worker removed");
                drop(abandoned);
            }
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(path = %entry.path().display(), %error, "directory not locked");
            }
        }
    }
}

fn is_same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

fn remove(path: &Path) {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "directory of sockets not removed");
        }
        Ok(()) | Err(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_directory_is_private_and_leaves_with_its_worker() {
        let parent = tempfile::tempdir().unwrap();
        let missing = parent.path().join("missing");
        let dir = SocketDir::new(&[missing, parent.path().to_owned()]).unwrap();
        let mode = std::fs::metadata(dir.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let path = dir.path().to_owned();
        drop(dir);
        assert!(!path.exists());
    }

    #[test]
    fn only_directories_of_dead_workers_are_removed() {
        let parent = tempfile::tempdir().unwrap();
        let living = SocketDir::new_in(parent.path()).unwrap();
        let dead = parent.path().join(format!("{PREFIX}dead"));
        std::fs::create_dir_all(dead.join("0")).unwrap();
        let other = parent.path().join("sandhog-redis");
        std::fs::create_dir(&other).unwrap();
        let link = parent.path().join(format!("{PREFIX}link"));
        std::os::unix::fs::symlink(&other, &link).unwrap();

        remove_abandoned_in(parent.path(), living.user + 1);
        assert!(dead.exists(), "it belongs to another user");
        remove_abandoned_in(parent.path(), living.user);
        assert!(!dead.exists(), "its worker holds no lock");
        assert!(living.path().exists(), "its worker holds the lock");
        assert!(other.exists(), "it has another name");
        assert!(link.is_symlink(), "it is no directory");
    }

    #[test]
    fn a_path_that_is_too_long_for_a_socket_is_an_error() {
        let parent = tempfile::tempdir().unwrap();
        let long = parent.path().join("x".repeat(MAX_DIR_BYTES));
        std::fs::create_dir(&long).unwrap();
        let error = SocketDir::new_in(&long).unwrap_err();
        assert!(error.to_string().contains("too long for a socket"));
    }
}
