//! Resources of the worker's process, as the kernel counts them.

use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Time that a worker may take to become idle again. Threads that ran blocking work wait a while
/// for more.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

/// Memory that a worker may keep after one program or after all of them, because allocators return
/// it late. Far less than one program prints.
const SLACK_KIB: u64 = 48 << 10;

/// Open descriptors, threads and resident memory of one process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProcessResources {
    fds: usize,
    threads: usize,
    resident_kib: u64,
}

impl ProcessResources {
    /// Reads the resources of the process `pid`.
    ///
    /// # Panics
    /// Panics if the process has ended.
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

    /// Waits until the process `pid` holds no more descriptors and threads than this, and at most
    /// [`SLACK_KIB`] more memory. Returns a description of the excess if it stays.
    pub(crate) fn wait_for_baseline(&self, pid: u32) -> Option<String> {
        let deadline = Instant::now() + WAIT_TIMEOUT;
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
