//! `sandhog-noop-worker` as a process: a real worker whose jobs do nothing.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How such a worker is started.
#[derive(Debug, Clone)]
pub struct NoopSpec {
    /// The built program.
    pub program: PathBuf,
    /// Where Redis is.
    pub url: String,
    /// The namespace it serves.
    pub namespace: String,
    /// Jobs at once.
    pub slots: usize,
    /// Its lease.
    pub lease: Duration,
    /// The longest that a job sleeps which does not say how long.
    pub most_sleep: Duration,
}

impl NoopSpec {
    /// Starts one that logs to `log`, and does not wait for anything.
    ///
    /// # Panics
    /// When the process cannot be started.
    #[must_use]
    pub fn start(&self, id: &str, log: &Path) -> NoopWorker {
        self.start_with(id, log, None)
    }

    /// Starts a process of several workers, whose names are `id` with their numbers.
    ///
    /// # Panics
    /// Panics when the process cannot be started.
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

/// A running one; killed when dropped.
#[derive(Debug)]
pub struct NoopWorker {
    id: String,
    child: Child,
}

impl NoopWorker {
    /// Its name in Redis.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When the process is gone and has been waited for.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a process id fits");
        kill(Pid::from_raw(pid), signal).expect("our own child can be signalled");
    }

    /// Kills it with SIGKILL and waits until it is gone.
    ///
    /// # Panics
    /// When it cannot be waited for.
    pub fn kill9(&mut self) {
        self.child.kill().expect("our own child can be killed");
        self.child.wait().expect("our own child can be waited for");
    }

    /// How it ended, if it has.
    ///
    /// # Panics
    /// When it cannot be asked.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("our own child can be asked")
    }

    /// Asks it to drain and waits until it has.
    ///
    /// # Panics
    /// When it cannot be waited for.
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
        // It may have ended by itself.
        let _already_gone = self.child.kill();
        let _already_waited_for = self.child.wait();
    }
}

/// Microseconds since 1970, finer than the product's own clock: a start takes less than a millisecond.
///
/// # Panics
/// When the machine's clock stands before 1970.
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
