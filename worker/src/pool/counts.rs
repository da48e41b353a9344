//! What the pool has done, and what it holds.

use sandhog_common::queue::{MachineFacts, PoolFacts};
use sandhog_common::units::{ByteCount, CpuMillis};

/// What the pool has done since it was made, and what it holds.
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
    /// Containers destroyed because nobody wanted them for long.
    pub expired: u64,
    /// Containers destroyed because they served the one job they were for.
    pub retired: u64,
    /// Containers destroyed because they came back unclean or not at all, or were found dead.
    pub spoiled: u64,
    /// Containers destroyed because they came back holding more memory than before.
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
    /// Containers there may be at once.
    pub containers_max: usize,
    /// Memory set aside for jobs and containers, in bytes.
    pub memory: u64,
    /// Memory there is to set aside, in bytes.
    pub memory_max: u64,
    /// CPU set aside for jobs, in thousandths of a core.
    pub cpu_millis: u64,
    /// CPU there is to set aside, in thousandths of a core.
    pub cpu_millis_max: u64,
    /// The engine's machine.
    pub machine: Option<MachineFacts>,
}

impl PoolCounts {
    /// What others are told of it.
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
