//! What the worker's process holds, as the kernel counts it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long a worker may take to be at rest again. Threads that had blocking work wait a while for more.
const PATIENCE: Duration = Duration::from_secs(60);

/// Memory that a worker may keep after a program, or after all of them: allocators return it late. Far less than what one program prints.
const SLACK_KIB: u64 = 48 << 10;

/// Open descriptors, threads and resident memory of one process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Holdings {
    fds: usize,
    threads: usize,
    resident_kib: u64,
}

impl Holdings {
    /// Of the process `pid`, now.
    ///
    /// # Panics
    /// When it is gone.
    pub(crate) fn of(pid: u32) -> Self {
        let folder = PathBuf::from(format!("/proc/{pid}"));
        let count = |name: &str| {
            std::fs::read_dir(folder.join(name))
                .expect("the worker runs")
                .count()
        };
        let status = std::fs::read_to_string(folder.join("status")).expect("the worker runs");
        let resident_kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.trim().strip_suffix(" kB")?.parse().ok())
            .expect("the kernel tells the resident memory");
        Self {
            fds: count("fd"),
            threads: count("task"),
            resident_kib,
        }
    }

    /// Waits until the process `pid` holds no descriptor and no thread more than this, and little memory; what it holds too
    /// much, if it keeps it.
    pub(crate) fn again(&self, pid: u32) -> Option<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = Self::of(pid);
            let little = now.resident_kib <= self.resident_kib + SLACK_KIB;
            if now.fds <= self.fds && now.threads <= self.threads && little {
                return None;
            }
            if Instant::now() >= deadline {
                return Some(format!("the worker held {self:?} and holds {now:?}"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
