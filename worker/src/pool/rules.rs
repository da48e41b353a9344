//! Settings of the pool, with each zero replaced by a value for this machine.

use std::time::Duration;

use sandhog_config::{PoolSettings, Reuse};
use sandhog_core::units::{ByteCount, CpuMillis};

use super::budget::BudgetAmount;
use crate::sandbox::EngineFacts;

/// Minimum number of containers if the setting is zero.
const MIN_CONTAINERS: usize = 8;

/// Containers per slot if the setting is zero: room for idle ones of other tenants and images, and
/// for some being destroyed.
const CONTAINERS_PER_SLOT: usize = 4;

/// Number of sandboxes of keepers if the setting is zero. They cost no container, so their measured
/// memory bounds their number.
const KEEPER_SANDBOXES: usize = 256;

/// Minimum number of containers kept ready, where each serves one job, if the setting is zero.
const MIN_READY: usize = 4;

/// Containers kept ready per slot: while a slot's job and the next one run, others are being
/// started.
const READY_PER_SLOT: usize = 2;

/// Parameters of the pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Maximum number of containers at once, in any state. At least 1.
    pub containers: usize,
    /// Memory of all jobs and idle containers together.
    pub memory: ByteCount,
    /// CPU of all jobs together.
    pub cpu_millis: CpuMillis,
    /// Which jobs may use a container after its first job.
    pub reuse: Reuse,
    /// Time for which an idle container is kept; zero keeps none.
    pub idle_for: Duration,
    /// Containers kept ready for each kind whose containers serve one job each.
    pub ahead: usize,
    /// Sandboxes of keepers that are kept ready for new tenants, while jobs of new tenants follow
    /// one another closely.
    pub ahead_for_tenants: usize,
    /// Number of workers that share the machine and its keepers.
    pub share: u64,
}

impl Rules {
    /// Computes the rules of a worker with `slots` slots on this engine's machine.
    #[must_use]
    pub fn new(settings: &PoolSettings, slots: usize, engine: &EngineFacts) -> Self {
        let share = u64::from(settings.workers).max(1);
        let slots_wide = u64::try_from(slots).unwrap_or(u64::MAX);
        let containers = match settings.containers {
            0 if engine.has_keepers => slots.saturating_mul(2).max(KEEPER_SANDBOXES),
            0 => (slots.saturating_mul(CONTAINERS_PER_SLOT)).max(MIN_CONTAINERS),
            set => usize::try_from(set).unwrap_or(usize::MAX),
        };
        let memory = match settings.memory {
            // One tenth is left for the host.
            ByteCount(0) => ByteCount(engine.memory.0 / 10 * 9 / share),
            set => set,
        };
        let cpu_millis = match settings.cpu_millis {
            // An operator who configures more slots than cores wants jobs to share the cores.
            CpuMillis(0) => CpuMillis(1000 * u64::from(engine.cpus).max(slots_wide) / share),
            set => set,
        };
        let ahead = match settings.ahead {
            0 => (slots.saturating_mul(READY_PER_SLOT)).max(MIN_READY),
            set => usize::try_from(set).unwrap_or(usize::MAX),
        };
        Self {
            containers,
            memory,
            cpu_millis,
            reuse: settings.reuse,
            idle_for: settings.idle_ms.duration(),
            ahead,
            ahead_for_tenants: match settings.reuse {
                Reuse::Tenant => ahead,
                Reuse::Never | Reuse::Any => 0,
            },
            share,
        }
    }

    pub(super) fn total(&self) -> BudgetAmount {
        BudgetAmount {
            containers: self.containers.max(1),
            memory: self.memory.0,
            cpu_millis: self.cpu_millis.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> EngineFacts {
        EngineFacts {
            version: String::new(),
            kernel: String::new(),
            runtimes: Vec::new(),
            cgroup_version: 2,
            cpus: 4,
            memory: ByteCount::mib(1000),
            is_local: true,
            machine: 0,
            has_keepers: false,
        }
    }

    #[test]
    fn zero_fits_the_machine() {
        let rules = Rules::new(&PoolSettings::default(), 2, &facts());
        assert_eq!(rules.containers, MIN_CONTAINERS);
        assert_eq!(rules.memory, ByteCount::mib(900));
        assert_eq!(rules.cpu_millis, CpuMillis(4000));
        assert_eq!(rules.ahead, MIN_READY);
        let many = Rules::new(&PoolSettings::default(), 16, &facts());
        assert_eq!((many.containers, many.cpu_millis), (64, CpuMillis(16_000)));
        assert_eq!(many.ahead, 32);
    }

    #[test]
    fn sandboxes_of_keepers_are_bounded_by_memory_and_not_by_a_small_number() {
        let facts = EngineFacts {
            has_keepers: true,
            ..facts()
        };
        let rules = Rules::new(&PoolSettings::default(), 2, &facts);
        assert_eq!(rules.containers, KEEPER_SANDBOXES);
        let set = PoolSettings {
            containers: 3,
            ..PoolSettings::default()
        };
        assert_eq!(Rules::new(&set, 2, &facts).containers, 3);
    }

    #[test]
    fn workers_of_one_machine_share_it() {
        let settings = PoolSettings {
            workers: 3,
            ..PoolSettings::default()
        };
        let rules = Rules::new(&settings, 2, &facts());
        assert_eq!(rules.memory, ByteCount::mib(300));
        assert_eq!(rules.cpu_millis, CpuMillis(1333));
    }

    #[test]
    fn what_is_set_counts() {
        let settings = PoolSettings {
            containers: 3,
            memory: ByteCount::mib(64),
            cpu_millis: CpuMillis(500),
            ahead: 7,
            ..PoolSettings::default()
        };
        let rules = Rules::new(&settings, 2, &facts());
        assert_eq!(
            (
                rules.containers,
                rules.memory,
                rules.cpu_millis,
                rules.ahead
            ),
            (3, ByteCount::mib(64), CpuMillis(500), 7)
        );
    }
}
