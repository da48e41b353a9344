//! Assignment of GPUs to demands: pure bookkeeping, without driver or clock.
//!
//! A GPU is assigned to one job for exclusive use, or to several jobs, each of which states how
//! much of its memory it uses. Demands wait in order: a GPU that an earlier demand waits for is not
//! given to a later one. A failed GPU is never assigned, and a demand that can no longer be met is
//! rejected at once.

use std::collections::VecDeque;

use super::demand::Demand;
use super::discover::FoundGpu;

/// Reason why this worker can never meet a demand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsatisfiable {
    /// Too few working GPUs of that model and memory.
    #[error("{want} GPUs{of} are wanted, and this worker has {have} that work")]
    TooFew {
        /// The number needed.
        want: usize,
        /// The required properties as text; empty if there are none.
        of: String,
        /// The number available.
        have: usize,
    },
}

/// A GPU and its holders.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) gpu: FoundGpu,
    pub(super) failure: Option<String>,
    /// The number of holders.
    pub(super) holders: u32,
    /// The sum of the memory that its holders state, in bytes.
    memory: u64,
    /// True if its one holder has exclusive use.
    exclusive: bool,
}

/// The GPUs assigned to one demand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Assignment {
    /// The indices of the GPUs in [`Assigner::devices`].
    pub(super) devices: Vec<usize>,
    /// The memory used on each, in bytes; `None` for exclusive use.
    memory: Option<u64>,
}

/// Answer to a demand.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Allocation {
    /// The demand was met with these GPUs.
    Assigned(Assignment),
    /// The demand can never be met.
    Unsatisfiable(Unsatisfiable),
}

/// The GPUs of one worker.
#[derive(Debug)]
pub(super) struct Assigner {
    share: u32,
    pub(super) devices: Vec<Device>,
    waiting: VecDeque<(u64, Demand)>,
    next: u64,
}

impl Assigner {
    /// Creates an assigner in which all GPUs are free. At most `share` holders may share one.
    pub(super) fn new(gpus: Vec<FoundGpu>, share: u32) -> Self {
        let free_device = |gpu| Device {
            gpu,
            failure: None,
            holders: 0,
            memory: 0,
            exclusive: false,
        };
        Self {
            share,
            devices: gpus.into_iter().map(free_device).collect(),
            waiting: VecDeque::new(),
            next: 0,
        }
    }

    /// Puts a demand at the end of the queue; [`Self::allocate`] answers it.
    pub(super) fn enqueue(&mut self, demand: Demand) -> u64 {
        let number = self.next;
        self.next += 1;
        self.waiting.push_back((number, demand));
        number
    }

    /// Removes a demand from the queue.
    pub(super) fn withdraw(&mut self, number: u64) {
        self.waiting.retain(|(waiting, _)| *waiting != number);
    }

    /// Returns whether a demand waits.
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Answers every demand that can be answered now, in the order of arrival.
    pub(super) fn allocate(&mut self) -> Vec<(u64, Allocation)> {
        let mut answers = Vec::new();
        let mut kept = VecDeque::new();
        let mut reserved = vec![false; self.devices.len()];
        for (number, demand) in std::mem::take(&mut self.waiting) {
            let fit: Vec<usize> = (0..self.devices.len())
                .filter(|index| self.is_eligible(*index, &demand))
                .collect();
            if fit.len() < demand.count {
                answers.push((
                    number,
                    Allocation::Unsatisfiable(unsatisfiable(&demand, fit.len())),
                ));
                continue;
            }
            let mut free: Vec<usize> = fit
                .iter()
                .copied()
                .filter(|index| !reserved[*index] && self.is_available(*index, &demand))
                .collect();
            if free.len() < demand.count {
                fit.into_iter().for_each(|index| reserved[index] = true);
                kept.push_back((number, demand));
                continue;
            }
            // The fullest GPU first, so that whole GPUs stay free for demands for exclusive use.
            free.sort_by_key(|index| std::cmp::Reverse(self.devices[*index].memory));
            free.truncate(demand.count);
            free.sort_unstable();
            answers.push((number, Allocation::Assigned(self.assign(free, &demand))));
        }
        self.waiting = kept;
        answers
    }

    /// Releases an assignment.
    pub(super) fn release(&mut self, assignment: &Assignment) {
        for index in &assignment.devices {
            if let Some(device) = self.devices.get_mut(*index) {
                device.holders -= 1;
                device.memory -= assignment.memory.unwrap_or(0);
                device.exclusive = false;
            }
        }
    }

    /// Marks a GPU as failed. Returns whether it was working until now.
    pub(super) fn fail(&mut self, index: usize, why: &str) -> bool {
        match self.devices.get_mut(index) {
            Some(device) if device.failure.is_none() => {
                device.failure = Some(why.to_owned());
                true
            }
            _known_or_unknown => false,
        }
    }

    /// Returns the working GPUs.
    pub(super) fn working(&self) -> impl Iterator<Item = &FoundGpu> {
        let working = self
            .devices
            .iter()
            .filter(|device| device.failure.is_none());
        working.map(|device| &device.gpu)
    }

    /// Returns whether the demand could be met if all GPUs were free.
    pub(super) fn can_meet(&self, demand: &Demand) -> bool {
        let fit = (0..self.devices.len()).filter(|index| self.is_eligible(*index, demand));
        fit.count() >= demand.count
    }

    /// Returns whether the demand could be met if every GPU outside `kept` were free.
    pub(super) fn can_meet_outside(&self, demand: &Demand, kept: &[String]) -> bool {
        let shared = self.share > 1 && demand.memory.is_some();
        let fit = (0..self.devices.len())
            .filter(|index| self.is_eligible(*index, demand))
            .filter(|index| {
                let Device { gpu, exclusive, .. } = &self.devices[*index];
                !kept.contains(&gpu.uuid) || shared && !exclusive
            });
        fit.count() >= demand.count
    }

    fn is_eligible(&self, index: usize, demand: &Demand) -> bool {
        let Device { gpu, failure, .. } = &self.devices[index];
        failure.is_none()
            && demand.memory.is_none_or(|memory| memory <= gpu.memory)
            && demand
                .models
                .iter()
                .all(|model| gpu.tag.as_ref() == Some(model))
    }

    fn is_available(&self, index: usize, demand: &Demand) -> bool {
        let device = &self.devices[index];
        match demand.memory.filter(|_| self.share > 1) {
            None => device.holders == 0,
            Some(memory) => {
                !device.exclusive
                    && device.holders < self.share
                    && device.memory.saturating_add(memory.0) <= device.gpu.memory.0
            }
        }
    }

    fn assign(&mut self, devices: Vec<usize>, demand: &Demand) -> Assignment {
        let memory = demand.memory.filter(|_| self.share > 1);
        for index in &devices {
            let device = &mut self.devices[*index];
            device.holders += 1;
            device.memory += memory.map_or(0, |memory| memory.0);
            device.exclusive = memory.is_none();
        }
        Assignment {
            devices,
            memory: memory.map(|memory| memory.0),
        }
    }
}

fn unsatisfiable(demand: &Demand, have: usize) -> Unsatisfiable {
    let mut of = String::new();
    for model in &demand.models {
        of += &format!(" of model {model}");
    }
    if let Some(memory) = demand.memory {
        of += &format!(" with {memory}");
    }
    Unsatisfiable::TooFew {
        want: demand.count,
        of,
        have,
    }
}

#[cfg(test)]
mod tests {
    use sandhog_core::gpu::GpuNeed;
    use sandhog_core::units::ByteCount;

    use super::*;

    fn gpus(tags: &[&str]) -> Vec<FoundGpu> {
        let gpu = |(number, tag): (usize, &&str)| FoundGpu {
            number: u32::try_from(number).unwrap(),
            uuid: format!("GPU-{number}"),
            name: (*tag).to_owned(),
            tag: tag.parse().ok(),
            memory: ByteCount(100),
        };
        tags.iter().enumerate().map(gpu).collect()
    }

    fn want(count: u32, memory: Option<u64>) -> Demand {
        Demand::of(GpuNeed {
            count,
            memory: memory.map(ByteCount),
        })
    }

    /// Returns the answer to the only demand that is answered now.
    fn only(assigner: &mut Assigner) -> Allocation {
        let mut answers = assigner.allocate();
        assert_eq!(answers.len(), 1, "{answers:?}");
        answers.remove(0).1
    }

    fn given(assigner: &mut Assigner, demand: Demand) -> Assignment {
        assigner.enqueue(demand);
        match only(assigner) {
            Allocation::Assigned(given) => given,
            Allocation::Unsatisfiable(unsatisfiable) => panic!("{unsatisfiable}"),
        }
    }

    #[test]
    fn each_has_its_gpu_alone_and_the_third_waits() {
        let mut assigner = Assigner::new(gpus(&["t4", "t4"]), 1);
        let first = given(&mut assigner, want(1, None));
        // Without sharing, memory only selects GPUs that are large enough.
        let second = given(&mut assigner, want(1, Some(10)));
        assert_ne!(first.devices, second.devices);
        assigner.enqueue(want(1, None));
        assert_eq!(assigner.allocate(), []);
        assert!(assigner.has_waiting());
        assigner.release(&second);
        let third = only(&mut assigner);
        assert!(matches!(third, Allocation::Assigned(third) if third.devices == second.devices));
        assert!(!assigner.has_waiting());
    }

    #[test]
    fn memory_is_shared_until_it_is_used_up() {
        let mut assigner = Assigner::new(gpus(&["t4", "t4"]), 3);
        let first = given(&mut assigner, want(1, Some(60)));
        let second = given(&mut assigner, want(1, Some(40)));
        assert_eq!(first.devices, second.devices, "the fullest that fits");
        let whole = given(&mut assigner, want(1, None));
        assert_ne!(first.devices, whole.devices);
        assigner.enqueue(want(1, Some(1)));
        assert_eq!(assigner.allocate(), [], "one is full, the other had alone");
        assigner.release(&first);
        assert!(matches!(only(&mut assigner), Allocation::Assigned(_)));
        let last = given(&mut assigner, want(1, Some(1)));
        assert_eq!(last.devices, second.devices);
        assigner.enqueue(want(1, Some(1)));
        assert_eq!(assigner.allocate(), [], "three share it already");
    }

    #[test]
    fn nobody_overtakes_who_waits_for_the_same_gpus() {
        let mut assigner = Assigner::new(gpus(&["t4", "t4", "h100"]), 1);
        let of = |model: &str| Demand {
            models: vec![model.parse().unwrap()],
            ..want(1, None)
        };
        let first = given(&mut assigner, of("t4"));
        let both = Demand {
            count: 2,
            ..of("t4")
        };
        let both = assigner.enqueue(both);
        let one = assigner.enqueue(of("t4"));
        let other = assigner.enqueue(of("h100"));
        let answers = assigner.allocate();
        assert_eq!(answers.len(), 1);
        assert_eq!(answers[0].0, other, "another model may pass");
        assigner.release(&first);
        assert_eq!(assigner.allocate()[0].0, both);
        assert!(assigner.has_waiting());
        assigner.withdraw(one);
        assert!(!assigner.has_waiting());
    }

    #[test]
    fn a_failed_gpu_is_given_to_nobody() {
        let mut assigner = Assigner::new(gpus(&["t4", "t4"]), 1);
        let held = given(&mut assigner, want(1, None));
        assert!(assigner.fail(1, "lost"));
        assert!(!assigner.fail(1, "lost again"), "no news");
        assert_eq!(assigner.working().count(), 1);
        assigner.enqueue(want(1, None));
        assert_eq!(assigner.allocate(), [], "the other one will do");
        assert!(assigner.fail(0, "lost"));
        assert!(matches!(only(&mut assigner), Allocation::Unsatisfiable(_)));
        assigner.release(&held);
        assigner.enqueue(want(1, None));
        assert!(matches!(only(&mut assigner), Allocation::Unsatisfiable(_)));
        assert!(!assigner.can_meet(&want(1, None)));
    }

    #[test]
    fn nobody_waits_for_what_who_asks_keeps() {
        let mut assigner = Assigner::new(gpus(&["t4", "t4"]), 1);
        let first = given(&mut assigner, want(1, None));
        let kept = [format!("GPU-{}", first.devices[0])];
        assert!(assigner.can_meet_outside(&want(1, None), &kept));
        assert!(!assigner.can_meet_outside(&want(2, None), &kept));
        assert!(assigner.can_meet_outside(&want(2, None), &[]));

        let mut assigner = Assigner::new(gpus(&["t4"]), 2);
        let kept = ["GPU-0".to_owned()];
        let part = given(&mut assigner, want(1, Some(40)));
        assert!(assigner.can_meet_outside(&want(1, Some(40)), &kept));
        assert!(!assigner.can_meet_outside(&want(1, None), &kept));
        assigner.release(&part);
        given(&mut assigner, want(1, None));
        assert!(!assigner.can_meet_outside(&want(1, Some(40)), &kept));
    }

    #[test]
    fn what_can_never_be_had_is_refused_in_words() {
        let mut assigner = Assigner::new(gpus(&["t4"]), 1);
        for (demand, want) in [
            (
                want(2, None),
                "2 GPUs are wanted, and this worker has 1 that work",
            ),
            (
                want(1, Some(101)),
                "1 GPUs with 101 bytes are wanted, and this worker has 0 that work",
            ),
            (
                Demand {
                    models: vec!["h100".parse().unwrap()],
                    ..want(1, None)
                },
                "1 GPUs of model h100 are wanted, and this worker has 0 that work",
            ),
        ] {
            assigner.enqueue(demand);
            match only(&mut assigner) {
                Allocation::Unsatisfiable(unsatisfiable) => {
                    assert_eq!(unsatisfiable.to_string(), want)
                }
                Allocation::Assigned(given) => panic!("{given:?}"),
            }
        }
    }
}
