//! The budget of one worker: the containers, memory and CPU that all its containers and jobs may
//! use together.
//!
//! A container, idle or not, takes one place and the memory it was last measured to hold: when it
//! was ready, and after each job. A running job additionally takes its caps. A container that is
//! being destroyed counts until it is removed.

use super::request::Need;

/// The total resources, and the part that is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PoolBudget {
    total: BudgetAmount,
    taken: BudgetAmount,
}

/// An amount of each resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct BudgetAmount {
    pub(super) containers: usize,
    pub(super) memory: u64,
    pub(super) cpu_millis: u64,
}

impl PoolBudget {
    pub(super) fn new(total: BudgetAmount) -> Self {
        Self {
            total,
            taken: BudgetAmount::default(),
        }
    }

    pub(super) fn total(&self) -> BudgetAmount {
        self.total
    }

    pub(super) fn taken(&self) -> BudgetAmount {
        self.taken
    }

    /// Limits a job's need to the total: a job that asks for more than exists gets all of it,
    /// alone.
    pub(super) fn clamp(&self, need: Need, container: u64) -> Need {
        Need {
            memory: need.memory.min(self.total.memory.saturating_sub(container)),
            cpu_millis: need.cpu_millis.min(self.total.cpu_millis),
        }
    }

    /// Returns whether the need fits, and otherwise what is missing. If CPU is missing, it reports
    /// only that, because destroying an idle container frees no CPU.
    pub(super) fn check_reserve(&self, need: Need) -> Result<(), Shortage> {
        if self.taken.cpu_millis + need.cpu_millis > self.total.cpu_millis {
            return Err(Shortage::Cpu);
        }
        match (self.taken.memory + need.memory).checked_sub(self.total.memory) {
            None | Some(0) => Ok(()),
            Some(short) => Err(Shortage::Memory(short)),
        }
    }

    /// Reserves a job's need.
    pub(super) fn reserve(&mut self, need: Need) {
        self.taken.memory += need.memory;
        self.taken.cpu_millis += need.cpu_millis;
    }

    /// Releases the need of a job that has ended.
    pub(super) fn release(&mut self, need: Need) {
        self.taken.memory -= need.memory;
        self.taken.cpu_millis -= need.cpu_millis;
    }

    /// Returns whether one more container with this memory fits.
    pub(super) fn fits_container(&self, container: u64) -> bool {
        self.taken.containers < self.total.containers
            && self.taken.memory + container <= self.total.memory
    }

    /// Counts one more container.
    pub(super) fn add(&mut self, container: u64) {
        self.taken.containers += 1;
        self.taken.memory += container;
    }

    /// Replaces the memory of a container, assumed or measured before, by the measured one.
    pub(super) fn correct(&mut self, assumed_memory: u64, measured_memory: u64) {
        self.taken.memory = self.taken.memory - assumed_memory + measured_memory;
    }

    /// Removes a container.
    pub(super) fn remove(&mut self, container: u64) {
        self.taken.containers -= 1;
        self.taken.memory -= container;
    }
}

/// The missing resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shortage {
    /// CPU: only the end of a running job frees some.
    Cpu,
    /// Memory: the number of missing bytes.
    Memory(u64),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget() -> PoolBudget {
        PoolBudget::new(BudgetAmount {
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
        assert_eq!(budget.check_reserve(need), Ok(()));
        budget.reserve(need);
        assert!(budget.fits_container(100));
        assert!(!budget.fits_container(101));
        assert_eq!(budget.check_reserve(need), Err(Shortage::Memory(700)));
        budget.release(need);
        budget.correct(100, 300);
        assert_eq!(budget.check_reserve(need), Err(Shortage::Memory(100)));
        budget.remove(300);
        assert_eq!(budget.taken(), BudgetAmount::default());
    }

    #[test]
    fn cpu_and_places_are_bounds_of_their_own() {
        let mut budget = budget();
        let all = Need {
            memory: 1,
            cpu_millis: 1500,
        };
        budget.reserve(all);
        assert_eq!(budget.check_reserve(all), Err(Shortage::Cpu));
        budget.add(1);
        budget.add(1);
        assert!(!budget.fits_container(1), "two places");
    }

    #[test]
    fn a_job_greater_than_the_machine_gets_the_machine() {
        let budget = budget();
        let greedy = Need {
            memory: 5000,
            cpu_millis: 9000,
        };
        let clamp = budget.clamp(greedy, 100);
        assert_eq!((clamp.memory, clamp.cpu_millis), (900, 2000));
        assert_eq!(budget.check_reserve(clamp), Ok(()));
    }
}
