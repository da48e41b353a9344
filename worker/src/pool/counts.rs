//! Counters of the pool's events, and its current contents.

use sandhog_core::units::{ByteCount, CpuMillis};
use sandhog_queue::{MachineFacts, PoolFacts};

/// Counters since the pool was created, and its current contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PoolCounts {
    /// Containers started.
    pub started: u64,
    /// Starts that failed.
    pub failed: u64,
    /// Loans.
    pub lent: u64,
    /// Idle containers destroyed to make room, or because their image was rebuilt.
    pub evicted: u64,
    /// Containers destroyed because they were idle for too long.
    pub expired: u64,
    /// Containers destroyed because they had served their only job.
    pub retired: u64,
    /// Containers destroyed because their job did not end cleanly, the loan was dropped, or they
    /// were found dead.
    pub spoiled: u64,
    /// Containers destroyed because they held more memory after a job than before.
    pub grown: u64,
    /// Containers idle now.
    pub idle: usize,
    /// Containers on loan now.
    pub busy: usize,
    /// Containers being started now.
    pub starting: usize,
    /// Containers being destroyed now.
    pub leaving: usize,
    /// Attempts waiting for a container now.
    pub waiting: usize,
    /// Maximum number of containers at once.
    pub containers_max: usize,
    /// Memory reserved for jobs and containers, in bytes.
    pub memory: u64,
    /// Total memory that can be reserved, in bytes.
    pub memory_max: u64,
    /// CPU reserved for jobs, in thousandths of a core.
    pub cpu_millis: u64,
    /// Total CPU that can be reserved, in thousandths of a core.
    pub cpu_millis_max: u64,
    /// The engine's machine.
    pub machine: Option<MachineFacts>,
}

impl PoolCounts {
    /// Returns the facts that other workers and observers read.
    #[must_use]
    pub fn facts(&self) -> PoolFacts {
        let small = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        PoolFacts {
            busy: small(self.busy),
            idle: small(self.idle),
            starting: small(self.starting),
            leaving: small(self.leaving),
            containers_max: small(self.containers_max),
            memory: ByteCount(self.memory),
            memory_max: ByteCount(self.memory_max),
            cpu_millis: CpuMillis(self.cpu_millis),
            cpu_millis_max: CpuMillis(self.cpu_millis_max),
            machine: self.machine,
        }
    }
}
