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
pub enum Unmet {
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
pub(super) struct Place {
    pub(super) gpu: FoundGpu,
    pub(super) failure: Option<String>,
    /// The number of holders.
    pub(super) holders: u32,
    /// The sum of the memory that its holders state, in bytes.
    memory: u64,
    /// True if its one holder has exclusive use.
    alone: bool,
}

/// The GPUs assigned to one demand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Given {
    /// The indices of the GPUs in [`Assigner::places`].
    pub(super) places: Vec<usize>,
    /// The memory used on each, in bytes; `None` for exclusive use.
    memory: Option<u64>,
}

/// Answer to a demand.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The demand was met with these GPUs.
    Given(Given),
    /// The demand can never be met.
    Unmet(Unmet),
}

/// The GPUs of one worker.
#[derive(Debug)]
pub(super) struct Assigner {
    share: u32,
    pub(super) places: Vec<Place>,
    waiting: VecDeque<(u64, Demand)>,
    next: u64,
}

impl Assigner {
    /// Creates an assigner in which all GPUs are free. At most `share` holders may share one.
    pub(super) fn new(gpus: Vec<FoundGpu>, share: u32) -> Self {
        let place = |gpu| Place {
            gpu,
            failure: None,
            holders: 0,
            memory: 0,
            alone: false,
        };
        Self {
            share,
            places: gpus.into_iter().map(place).collect(),
            waiting: VecDeque::new(),
            next: 0,
        }
    }

    /// Puts a demand at the end of the queue; [`Self::settle`] answers it.
    pub(super) fn want(&mut self, demand: Demand) -> u64 {
        let number = self.next;
        self.next += 1;
        self.waiting.push_back((number, demand));
        number
    }

    /// Removes a demand from the queue.
    pub(super) fn forget(&mut self, number: u64) {
        self.waiting.retain(|(waiting, _)| *waiting != number);
    }

    /// Returns whether a demand waits.
    pub(super) fn is_short(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Answers every demand that can be answered now, in the order of arrival.
    pub(super) fn settle(&mut self) -> Vec<(u64, Answer)> {
        let mut answers = Vec::new();
        let mut kept = VecDeque::new();
        let mut spoken_for = vec![false; self.places.len()];
        for (number, demand) in std::mem::take(&mut self.waiting) {
            let fit: Vec<usize> = (0..self.places.len())
                .filter(|place| self.could_ever(*place, &demand))
                .collect();
            if fit.len() < demand.count {
                answers.push((number, Answer::Unmet(unmet(&demand, fit.len()))));
                continue;
            }
            let mut free: Vec<usize> = fit
                .iter()
                .copied()
                .filter(|place| !spoken_for[*place] && self.could_now(*place, &demand))
                .collect();
            if free.len() < demand.count {
                fit.into_iter().for_each(|place| spoken_for[place] = true);
                kept.push_back((number, demand));
                continue;
            }
            // The fullest GPU first, so that whole GPUs stay free for demands for exclusive use.
            free.sort_by_key(|place| std::cmp::Reverse(self.places[*place].memory));
            free.truncate(demand.count);
            free.sort_unstable();
            answers.push((number, Answer::Given(self.give(free, &demand))));
        }
        self.waiting = kept;
        answers
    }

    /// Releases an assignment.
    pub(super) fn take_back(&mut self, given: &Given) {
        for at in &given.places {
            if let Some(place) = self.places.get_mut(*at) {
                place.holders -= 1;
                place.memory -= given.memory.unwrap_or(0);
                place.alone = false;
            }
        }
    }

    /// Marks a GPU as failed. Returns whether it was working until now.
    pub(super) fn fail(&mut self, place: usize, why: &str) -> bool {
        match self.places.get_mut(place) {
            Some(place) if place.failure.is_none() => {
                place.failure = Some(why.to_owned());
                true
            }
            _known_or_unknown => false,
        }
    }

    /// Returns the working GPUs.
    pub(super) fn healthy(&self) -> impl Iterator<Item = &FoundGpu> {
        let healthy = self.places.iter().filter(|place| place.failure.is_none());
        healthy.map(|place| &place.gpu)
    }

    /// Returns whether the demand could be met if all GPUs were free.
    pub(super) fn could_meet(&self, demand: &Demand) -> bool {
        let fit = (0..self.places.len()).filter(|place| self.could_ever(*place, demand));
        fit.count() >= demand.count
    }

    /// Returns whether the demand could be met if every GPU outside `kept` were free.
    pub(super) fn could_meet_beside(&self, demand: &Demand, kept: &[String]) -> bool {
        let shared = self.share > 1 && demand.memory.is_some();
        let fit = (0..self.places.len())
            .filter(|place| self.could_ever(*place, demand))
            .filter(|place| {
                let Place { gpu, alone, .. } = &self.places[*place];
                !kept.contains(&gpu.uuid) || shared && !alone
            });
        fit.count() >= demand.count
    }

    fn could_ever(&self, place: usize, demand: &Demand) -> bool {
        let Place { gpu, failure, .. } = &self.places[place];
        failure.is_none()
            && demand.memory.is_none_or(|memory| memory <= gpu.memory)
            && demand
                .models
                .iter()
                .all(|model| gpu.tag.as_ref() == Some(model))
    }

    fn could_now(&self, place: usize, demand: &Demand) -> bool {
        let place = &self.places[place];
        match demand.memory.filter(|_| self.share > 1) {
            None => place.holders == 0,
            Some(memory) => {
                !place.alone
                    && place.holders < self.share
                    && place.memory.saturating_add(memory.0) <= place.gpu.memory.0
            }
        }
    }

    fn give(&mut self, places: Vec<usize>, demand: &Demand) -> Given {
        let memory = demand.memory.filter(|_| self.share > 1);
        for at in &places {
            let place = &mut self.places[*at];
            place.holders += 1;
            place.memory += memory.map_or(0, |memory| memory.0);
            place.alone = memory.is_none();
        }
        Given {
            places,
            memory: memory.map(|memory| memory.0),
        }
    }
}

fn unmet(demand: &Demand, have: usize) -> Unmet {
    let mut of = String::new();
    for model in &demand.models {
        of += &format!(" of model {model}");
    }
    if let Some(memory) = demand.memory {
        of += &format!(" with {memory}");
    }
    Unmet::TooFew {
        want: demand.count,
        of,
        have,
    }
}

#[cfg(test)]
mod tests {
    use sandhog_common::gpu::GpuNeed;
    use sandhog_common::units::ByteCount;

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
    fn only(assigner: &mut Assigner) -> Answer {
        let mut answers = assigner.settle();
        assert_eq!(answers.len(), 1, "{answers:?}");
        answers.remove(0).1
    }

    fn given(assigner: &mut Assigner, demand: Demand) -> Given {
        assigner.want(demand);
        match only(assigner) {
            Answer::Given(given) => given,
            Answer::Unmet(unmet) => panic!("{unmet}"),
        }
    }

    #[test]
    fn each_has_its_gpu_alone_and_the_third_waits() {
        let mut assigner = Assigner::new(gpus(&["t4", "t4"]), 1);
        let first = given(&mut assigner, want(1, None));
        // Without sharing, memory only selects GPUs that are large enough.
        let second = given(&mut assigner, want(1, Some(10)));
        assert_ne!(first.places, second.places);
        assigner.want(want(1, None));
        assert_eq!(assigner.settle(), []);
        assert!(assigner.is_short());
        assigner.take_back(&second);
        assert!(
            matches!(only(&mut assigner), Answer::Given(third) if third.places == second.places)
        );
        assert!(!assigner.is_short());
    }

    #[test]
    fn memory_is_shared_until_it_is_used_up() {
        let mut assigner = Assigner::new(gpus(&["t4", "t4"]), 3);
        let first = given(&mut assigner, want(1, Some(60)));
        let second = given(&mut assigner, want(1, Some(40)));
        assert_eq!(first.places, second.places, "the fullest that fits");
        let whole = given(&mut assigner, want(1, None));
        assert_ne!(first.places, whole.places);
        assigner.want(want(1, Some(1)));
        assert_eq!(assigner.settle(), [], "one is full, the other had alone");
        assigner.take_back(&first);
        assert!(matches!(only(&mut assigner), Answer::Given(_)));
        let last = given(&mut assigner, want(1, Some(1)));
        assert_eq!(last.places, second.places);
        assigner.want(want(1, Some(1)));
        assert_eq!(assigner.settle(), [], "three share it already");
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
        let both = assigner.want(both);
        let one = assigner.want(of("t4"));
        let other = assigner.want(of("h100"));
        let answers = assigner.settle();
        assert_eq!(answers.len(), 1);
        assert_eq!(answers[0].0, other, "another model may pass");
        assigner.take_back(&first);
        assert_eq!(assigner.settle()[0].0, both);
        assert!(assigner.is_short());
        assigner.forget(one);
        assert!(!assigner.is_short());
    }

    #[test]
    fn a_failed_gpu_is_given_to_nobody() {
        let mut assigner = Assigner::new(gpus(&["t4", "t4"]), 1);
        let held = given(&mut assigner, want(1, None));
        assert!(assigner.fail(1, "lost"));
        assert!(!assigner.fail(1, "lost again"), "no news");
        assert_eq!(assigner.healthy().count(), 1);
        assigner.want(want(1, None));
        assert_eq!(assigner.settle(), [], "the other one will do");
        assert!(assigner.fail(0, "lost"));
        assert!(matches!(only(&mut assigner), Answer::Unmet(_)));
        assigner.take_back(&held);
        assigner.want(want(1, None));
        assert!(matches!(only(&mut assigner), Answer::Unmet(_)));
        assert!(!assigner.could_meet(&want(1, None)));
    }

    #[test]
    fn nobody_waits_for_what_who_asks_keeps() {
        let mut assigner = Assigner::new(gpus(&["t4", "t4"]), 1);
        let first = given(&mut assigner, want(1, None));
        let kept = [format!("GPU-{}", first.places[0])];
        assert!(assigner.could_meet_beside(&want(1, None), &kept));
        assert!(!assigner.could_meet_beside(&want(2, None), &kept));
        assert!(assigner.could_meet_beside(&want(2, None), &[]));

        let mut assigner = Assigner::new(gpus(&["t4"]), 2);
        let kept = ["GPU-0".to_owned()];
        let part = given(&mut assigner, want(1, Some(40)));
        assert!(assigner.could_meet_beside(&want(1, Some(40)), &kept));
        assert!(!assigner.could_meet_beside(&want(1, None), &kept));
        assigner.take_back(&part);
        given(&mut assigner, want(1, None));
        assert!(!assigner.could_meet_beside(&want(1, Some(40)), &kept));
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
            assigner.want(demand);
            match only(&mut assigner) {
                Answer::Unmet(unmet) => assert_eq!(unmet.to_string(), want),
                Answer::Given(given) => panic!("{given:?}"),
            }
        }
    }
}
