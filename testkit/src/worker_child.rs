//! A worker process that a test starts, signals and kills.

use std::process::{Child, ExitStatus};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A running worker process, which is killed on drop.
#[derive(Debug)]
pub struct WorkerChild {
    id: String,
    child: Child,
}

impl WorkerChild {
    /// Returns a started process whose worker has this id.
    pub(crate) fn new(id: &str, child: Child) -> Self {
        Self {
            id: id.to_owned(),
            child,
        }
    }

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

impl Drop for WorkerChild {
    fn drop(&mut self) {
        // The process may have ended by itself.
        let _already_gone = self.child.kill();
        let _already_waited_for = self.child.wait();
    }
}
