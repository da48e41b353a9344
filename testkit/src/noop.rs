//! The process of a `sandhog-noop-worker`: a real worker whose jobs run no program.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

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
    pub fn start(&self, id: &str, log: &Path) -> NoopWorker {
        self.start_with(id, log, None)
    }

    /// Starts a process with several workers. Their names are `id` followed by their numbers.
    ///
    /// # Panics
    /// Panics if the process cannot be started.
    #[must_use]
    pub fn start_many(&self, id: &str, log: &Path, workers: usize) -> NoopWorker {
        self.start_with(id, log, Some(workers))
    }

    fn start_with(&self, id: &str, log: &Path, workers: Option<usize>) -> NoopWorker {
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
        NoopWorker {
            id: id.to_owned(),
            child,
        }
    }
}

/// A running process, which is killed on drop.
#[derive(Debug)]
pub struct NoopWorker {
    id: String,
    child: Child,
}

impl NoopWorker {
    /// Returns the worker's id in Redis.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// Panics if the process has ended and has been waited for.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a process id fits");
        kill(Pid::from_raw(pid), signal).expect("our own child can be signalled");
    }

    /// Kills the process with SIGKILL and waits until it is gone.
    ///
    /// # Panics
    /// Panics if waiting fails.
    pub fn kill9(&mut self) {
        self.child.kill().expect("our own child can be killed");
        self.child.wait().expect("our own child can be waited for");
    }

    /// Returns the exit status if the process has ended.
    ///
    /// # Panics
    /// Panics if its status cannot be read.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("our own child can be asked")
    }

    /// Tells the worker to drain and waits until it has ended.
    ///
    /// # Panics
    /// Panics if waiting fails.
    pub fn drain(&mut self) -> ExitStatus {
        if let Some(status) = self.ended() {
            return status;
        }
        self.signal(Signal::SIGTERM);
        self.child.wait().expect("our own child can be waited for")
    }
}

impl Drop for NoopWorker {
    fn drop(&mut self) {
        // The process may have ended by itself.
        let _already_gone = self.child.kill();
        let _already_waited_for = self.child.wait();
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
