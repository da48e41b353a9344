//! The budget of one worker: the containers, memory and CPU that all its containers and jobs may
//! use together.
//!
//! A container, idle or not, takes one place and the memory it was measured to hold when it was
//! ready. A running job additionally takes its caps. A container that is being destroyed counts
//! until it is removed.

use super::want::Need;

/// The total resources, and the part that is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Budget {
    total: Taken,
    taken: Taken,
}

/// An amount of each resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Taken {
    pub(super) containers: usize,
    pub(super) memory: u64,
    pub(super) cpu_millis: u64,
}

impl Budget {
    pub(super) fn new(total: Taken) -> Self {
        Self {
            total,
            taken: Taken::default(),
        }
    }

    pub(super) fn total(&self) -> Taken {
        self.total
    }

    pub(super) fn taken(&self) -> Taken {
        self.taken
    }

    /// Limits a job's need to the total: a job that asks for more than exists gets all of it,
    /// alone.
    pub(super) fn fit(&self, need: Need, container: u64) -> Need {
        Need {
            memory: need.memory.min(self.total.memory.saturating_sub(container)),
            cpu_millis: need.cpu_millis.min(self.total.cpu_millis),
        }
    }

    /// Returns whether the need fits, and otherwise what is missing. If CPU is missing, it reports
    /// only that, because destroying an idle container frees no CPU.
    pub(super) fn admits(&self, need: Need) -> Result<(), Short> {
        if self.taken.cpu_millis + need.cpu_millis > self.total.cpu_millis {
            return Err(Short::Cpu);
        }
        match (self.taken.memory + need.memory).checked_sub(self.total.memory) {
            None | Some(0) => Ok(()),
            Some(short) => Err(Short::Memory(short)),
        }
    }

    /// Reserves a job's need.
    pub(super) fn admit(&mut self, need: Need) {
        self.taken.memory += need.memory;
        self.taken.cpu_millis += need.cpu_millis;
    }

    /// Releases the need of a job that has ended.
    pub(super) fn release(&mut self, need: Need) {
        self.taken.memory -= need.memory;
        self.taken.cpu_millis -= need.cpu_millis;
    }

    /// Returns whether one more container with this memory fits.
    pub(super) fn holds(&self, container: u64) -> bool {
        self.taken.containers < self.total.containers
            && self.taken.memory + container <= self.total.memory
    }

    /// Counts one more container.
    pub(super) fn add(&mut self, container: u64) {
        self.taken.containers += 1;
        self.taken.memory += container;
    }

    /// Replaces the assumed memory of a container by the measured one.
    pub(super) fn correct(&mut self, thought: u64, found: u64) {
        self.taken.memory = self.taken.memory - thought + found;
    }

    /// Removes a container.
    pub(super) fn remove(&mut self, container: u64) {
        self.taken.containers -= 1;
        self.taken.memory -= container;
    }
}

/// The missing resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Short {
    /// CPU: only the end of a running job frees some.
    Cpu,
    /// Memory: the number of missing bytes.
    Memory(u64),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget() -> Budget {
        Budget::new(Taken {
            containers: 2,
            memory: 1000,
            cpu_millis: 2000,
        })
    }

    #[test]
    fn jobs_and_containers_share_the_memory() {
        let mut budget = budget();
        budget.add(100);
        let need = Need {
            memory: 800,
            cpu_millis: 1000,
        };
        assert_eq!(budget.admits(need), Ok(()));
        budget.admit(need);
        assert!(budget.holds(100));
        assert!(!budget.holds(101));
        assert_eq!(budget.admits(need), Err(Short::Memory(700)));
        budget.release(need);
        budget.correct(100, 300);
        assert_eq!(budget.admits(need), Err(Short::Memory(100)));
        budget.remove(300);
        assert_eq!(budget.taken(), Taken::default());
    }

    #[test]
    fn cpu_and_places_are_bounds_of_their_own() {
        let mut budget = budget();
        let all = Need {
            memory: 1,
            cpu_millis: 1500,
        };
        budget.admit(all);
        assert_eq!(budget.admits(all), Err(Short::Cpu));
        budget.add(1);
        budget.add(1);
        assert!(!budget.holds(1), "two places");
    }

    #[test]
    fn a_job_greater_than_the_machine_gets_the_machine() {
        let budget = budget();
        let greedy = Need {
            memory: 5000,
            cpu_millis: 9000,
        };
        let fit = budget.fit(greedy, 100);
        assert_eq!((fit.memory, fit.cpu_millis), (900, 2000));
        assert_eq!(budget.admits(fit), Ok(()));
    }
}
