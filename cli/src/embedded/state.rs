//! The state directory of `sandhog up`. It holds a lock for the instance that uses it, and a record
//! with which other commands reach that instance.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use sandhog_config::{Environment, Settings, state_dir};
use serde::{Deserialize, Serialize};

use super::EmbeddedError;
use super::redis::private_folder;

/// The record of a running `sandhog up`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InstanceRecord {
    /// Its process id.
    pub(crate) pid: u32,
    /// The URL of its Redis.
    pub(crate) redis: String,
    /// The namespace that its worker serves.
    pub(crate) namespace: String,
}

/// The state directory.
#[derive(Debug, Clone)]
pub(crate) struct StateDir {
    path: PathBuf,
}

/// The lock on the state directory. It is released when dropped, or by the kernel when the process
/// dies.
#[derive(Debug)]
pub(crate) struct StateLock {
    _file: File,
    record: PathBuf,
}

impl StateDir {
    /// Returns the state directory, which may not exist yet.
    ///
    /// # Errors
    /// Fails if neither `state.dir` nor a home directory is set.
    pub(crate) fn of(
        settings: &Settings,
        environment: &Environment,
    ) -> Result<Self, EmbeddedError> {
        state_dir(settings, environment)
            .map(|path| Self {
                path: std::path::absolute(&path).unwrap_or(path),
            })
            .ok_or(EmbeddedError::NoPlace)
    }

    /// Its path.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the record of the `sandhog up` that uses the directory now: its process lives, and
    /// its Redis accepts connections.
    #[must_use]
    pub(crate) fn running(&self) -> Option<InstanceRecord> {
        let record = std::fs::read_to_string(self.record()).ok()?;
        let running: InstanceRecord = serde_json::from_str(&record).ok()?;
        let socket = running.redis.strip_prefix("unix:")?;
        let alive = Path::new(&format!("/proc/{}", running.pid)).exists();
        (alive && UnixStream::connect(socket).is_ok()).then_some(running)
    }

    /// Locks the directory for this process. Creates it if it does not exist.
    ///
    /// # Errors
    /// Fails if another process has locked it, or the directory cannot be used.
    pub(crate) fn lock(&self) -> Result<StateLock, EmbeddedError> {
        private_folder(&self.path)?;
        let path = self.path.join("lock");
        let failed = |source| EmbeddedError::File {
            step: "lock",
            path: path.clone(),
            source,
        };
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(StateLock {
                _file: file,
                record: self.record(),
            }),
            Err(TryLockError::WouldBlock) => Err(EmbeddedError::Taken {
                path: self.path.clone(),
                pid: self.running().map(|running| running.pid),
            }),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    fn record(&self) -> PathBuf {
        self.path.join("up.json")
    }
}

impl StateLock {
    /// Writes the record with which other commands reach this instance. Dropping the lock removes
    /// it.
    ///
    /// # Errors
    /// Fails if the record cannot be written.
    pub(crate) fn announce(&self, running: &InstanceRecord) -> Result<(), EmbeddedError> {
        let failed = |source| EmbeddedError::File {
            step: "write",
            path: self.record.clone(),
            source,
        };
        let text = serde_json::to_string(running)
            .map_err(std::io::Error::from)
            .map_err(failed)?;
        // Renamed into place, so that no command reads a partial record.
        let fresh = self.record.with_extension("new");
        std::fs::write(&fresh, text).map_err(failed)?;
        std::fs::rename(&fresh, &self.record).map_err(failed)
    }
}

impl Drop for StateLock {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.record) {
            tracing::debug!(%error, "record of this instance not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_instance_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir {
            path: folder.path().join("state"),
        };
        let first = state.lock().unwrap();
        assert!(matches!(
            state.lock(),
            Err(EmbeddedError::Taken { pid: None, .. })
        ));
        drop(first);
        state.lock().unwrap();
    }

    #[test]
    fn a_record_counts_only_while_its_redis_takes_connections() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir {
            path: folder.path().to_owned(),
        };
        let lock = state.lock().unwrap();
        let socket = folder.path().join("s");
        let running = InstanceRecord {
            pid: std::process::id(),
            redis: format!("unix:{}", socket.display()),
            namespace: "default".to_owned(),
        };
        lock.announce(&running).unwrap();
        assert_eq!(state.running(), None, "no server listens");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert_eq!(state.running(), Some(running));
        drop(lock);
        assert_eq!(state.running(), None, "it is gone");
    }
}
