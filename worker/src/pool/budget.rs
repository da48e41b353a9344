//! What all containers and jobs of one worker may take of its machine together.
//!
//! A container takes one place and, idle or not, the memory it was measured to hold when it was ready. A job takes
//! its caps on top while it runs. One being destroyed counts until it is gone.

use super::want::Need;

/// What there is, and what is taken of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Budget {
    total: Taken,
    taken: Taken,
}

/// An amount of everything that is counted.
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

    /// What a job is made to need at most: one that asks for more than there is gets all of it, alone.
    pub(super) fn fit(&self, need: Need, container: u64) -> Need {
        Need {
            memory: need.memory.min(self.total.memory.saturating_sub(container)),
            cpu_millis: need.cpu_millis.min(self.total.cpu_millis),
        }
    }

    /// What memory is short of this need; none when only CPU is, which no idle container gives back.
    pub(super) fn admits(&self, need: Need) -> Result<(), Short> {
        if self.taken.cpu_millis + need.cpu_millis > self.total.cpu_millis {
            return Err(Short::Cpu);
        }
        match (self.taken.memory + need.memory).checked_sub(self.total.memory) {
            None | Some(0) => Ok(()),
            Some(short) => Err(Short::Memory(short)),
        }
    }

    /// Sets aside what a job needs.
    pub(super) fn admit(&mut self, need: Need) {
        self.taken.memory += need.memory;
        self.taken.cpu_millis += need.cpu_millis;
    }

    /// A job is over.
    pub(super) fn release(&mut self, need: Need) {
        self.taken.memory -= need.memory;
        self.taken.cpu_millis -= need.cpu_millis;
    }

    /// Whether one more container of this memory has a place.
    pub(super) fn holds(&self, container: u64) -> bool {
        self.taken.containers < self.total.containers
            && self.taken.memory + container <= self.total.memory
    }

    /// Counts one more container.
    pub(super) fn add(&mut self, container: u64) {
        self.taken.containers += 1;
        self.taken.memory += container;
    }

    /// A container turned out to hold something else than was thought.
    pub(super) fn correct(&mut self, thought: u64, found: u64) {
        self.taken.memory = self.taken.memory - thought + found;
    }

    /// A container is gone.
    pub(super) fn remove(&mut self, container: u64) {
        self.taken.containers -= 1;
        self.taken.memory -= container;
    }
}

/// What there is too little of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Short {
    /// CPU: only a job that ends gives some back.
    Cpu,
    /// So many bytes of memory.
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
