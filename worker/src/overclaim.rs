//! Finds workers that share one machine and together may give jobs more than it has.
//!
//! A worker knows only its own budget; the records of the others are read when it starts and by the
//! doctor. This module only reports: the operator decides how much each worker gets.

use std::collections::BTreeMap;

use sandhog_core::units::{ByteCount, CpuMillis};
use sandhog_queue::{MachineFacts, PoolFacts};

/// Advice for the operator.
pub(crate) const OVERCLAIM_HINT: &str = "set pool.workers to the number of workers on the \
                                         machine, or pool.memory and pool.cpu_millis of each \
                                         (with compose: SANDHOG_WORKERS in .env)";

/// Workers of one machine whose total budget exceeds its resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Overclaim {
    /// Number of workers.
    workers: usize,
    /// Sum of their budgets.
    memory: ByteCount,
    cpu_millis: CpuMillis,
    machine: MachineFacts,
}

impl Overclaim {
    /// Returns whether this is about the given machine.
    pub(crate) fn is_of(&self, machine: MachineFacts) -> bool {
        self.machine.id == machine.id
    }
}

impl std::fmt::Display for Overclaim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let cores = |cpu: CpuMillis| format!("{}.{}", cpu.0 / 1000, cpu.0 % 1000 / 100);
        write!(
            f,
            "{} workers on one machine may give jobs {} MiB and {} cores together, \
             it has {} MiB and {}",
            self.workers,
            self.memory.0 >> 20,
            cores(self.cpu_millis),
            self.machine.memory.0 >> 20,
            cores(self.machine.cpu_millis),
        )
    }
}

/// Returns each machine whose workers together claim more than it has. A single worker may claim
/// more, because its operator set that budget explicitly.
pub(crate) fn overclaims(pools: impl IntoIterator<Item = PoolFacts>) -> Vec<Overclaim> {
    let mut machines: BTreeMap<u64, Overclaim> = BTreeMap::new();
    for pool in pools {
        let Some(machine) = pool.machine else {
            continue;
        };
        let found = machines.entry(machine.id).or_insert(Overclaim {
            workers: 0,
            memory: ByteCount(0),
            cpu_millis: CpuMillis(0),
            machine,
        });
        found.workers += 1;
        found.memory.0 = found.memory.0.saturating_add(pool.memory_max.0);
        found.cpu_millis.0 = found.cpu_millis.0.saturating_add(pool.cpu_millis_max.0);
    }
    machines
        .into_values()
        .filter(|found| {
            found.workers > 1
                && (found.memory > found.machine.memory
                    || found.cpu_millis > found.machine.cpu_millis)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(machine: u64, memory: u64, cpu: u64) -> PoolFacts {
        PoolFacts {
            memory_max: ByteCount::mib(memory),
            cpu_millis_max: CpuMillis(cpu),
            machine: Some(MachineFacts {
                id: machine,
                memory: ByteCount::mib(1000),
                cpu_millis: CpuMillis(2000),
            }),
            ..PoolFacts::default()
        }
    }

    #[test]
    fn only_workers_that_claim_more_than_their_machine_are_named() {
        for (case, pools, want) in [
            ("one alone", vec![pool(1, 2000, 9000)], None),
            (
                "two that fit",
                vec![pool(1, 500, 1000), pool(1, 500, 1000)],
                None,
            ),
            (
                "two machines",
                vec![pool(1, 900, 2000), pool(2, 900, 2000)],
                None,
            ),
            (
                "no machine told",
                vec![PoolFacts::default(), PoolFacts::default()],
                None,
            ),
            (
                "too much memory",
                vec![pool(1, 900, 1000), pool(1, 900, 1000)],
                Some(
                    "2 workers on one machine may give jobs 1800 MiB and 2.0 cores together, \
                     it has 1000 MiB and 2.0",
                ),
            ),
            (
                "too many cores",
                vec![pool(1, 300, 1500), pool(1, 300, 1500), pool(2, 900, 2000)],
                Some(
                    "2 workers on one machine may give jobs 600 MiB and 3.0 cores together, \
                     it has 1000 MiB and 2.0",
                ),
            ),
        ] {
            let found: Vec<String> = overclaims(pools).iter().map(ToString::to_string).collect();
            assert_eq!(found.first().map(String::as_str), want, "case {case}");
            assert!(found.len() < 2, "case {case}");
        }
    }
}
