//! The process of a `sandhog-noop-worker`: a real worker whose jobs run no program.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::worker_child::WorkerChild;

/// Arguments of such a worker.
#[derive(Debug, Clone)]
pub struct NoopSpec {
    /// Path of the built program.
    pub program: PathBuf,
    /// URL of Redis.
    pub url: String,
    /// Namespace that the worker serves.
    pub namespace: String,
    /// Number of jobs that the worker runs at once.
    pub slots: usize,
    /// Lease of the worker's jobs.
    pub lease: Duration,
    /// Longest sleep of a job whose input sets no sleep time.
    pub most_sleep: Duration,
}

impl NoopSpec {
    /// Starts a worker that logs to `log`, without waiting for it to become ready.
    ///
    /// # Panics
    /// Panics if the process cannot be started.
    #[must_use]
    pub fn start(&self, id: &str, log: &Path) -> WorkerChild {
        self.start_with(id, log, None)
    }

    /// Starts a process with several workers. Their names are `id` followed by their numbers.
    ///
    /// # Panics
    /// Panics if the process cannot be started.
    #[must_use]
    pub fn start_many(&self, id: &str, log: &Path, workers: usize) -> WorkerChild {
        self.start_with(id, log, Some(workers))
    }

    fn start_with(&self, id: &str, log: &Path, workers: Option<usize>) -> WorkerChild {
        let log = File::create(log).expect("a log file can be made");
        let child = Command::new(&self.program)
            .args([&self.url, &self.namespace, id])
            .arg(self.slots.to_string())
            .arg(self.lease.as_millis().to_string())
            .arg(self.most_sleep.as_millis().to_string())
            .args(workers.map(|workers| workers.to_string()))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file handle can be copied"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", self.program.display()));
        WorkerChild::new(id, child)
    }
}

/// Returns the time since 1970 in microseconds. The product's own clock counts milliseconds, and a
/// start takes less than one.
///
/// # Panics
/// Panics if the machine's clock is before 1970.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "measured on one machine in microseconds; the product's clock counts milliseconds"
)]
pub fn now_us() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("the clock stands after 1970");
    u64::try_from(since.as_micros()).expect("microseconds since 1970 fit")
}
