//! Counters of a cgroup.

/// Counters of a cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::cell) struct Counts {
    /// CPU time, in microseconds.
    pub(in crate::cell) cpu_us: u64,
    /// Processes that the kernel killed because memory was used up.
    pub(in crate::cell) oom_kills: u64,
}
