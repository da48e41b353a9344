//! The pool's state: idle containers, containers on loan, waiters, and usage records of its kinds.
//!
//! Events change the state here; [`decide`](super::decide) chooses the next steps. The state
//! performs no I/O: it starts no container and does not wait, and the caller passes the current
//! time. So its tests need neither an engine nor a clock.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use sandhog_common::config::Reuse;
use sandhog_common::units::ByteCount;

use super::PoolCounts;
use super::budget::Budget;
use super::habit::{Habit, average};
use super::rules::Rules;
use super::want::{Kind, Need, Owner, Want};
use crate::sandbox::Image;

/// Memory assumed for a container until one of its kind was measured.
pub(crate) const UNMEASURED: ByteCount = ByteCount::mib(32);

/// A container whose memory has grown by more than its cap divided by this number since before its
/// first job does not serve again.
pub(super) const GROWTH_PART: u64 = 8;

/// Start time assumed for a container until one of its kind was measured.
const UNMEASURED_START: Duration = Duration::from_millis(350);

/// Delay after the first failed start. It doubles with each further failure in a row.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// Maximum delay after a failed start.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Number of unclean returns in a row after which the containers of a kind serve one job each.
const UNCLEAN_IN_A_ROW: u32 = 2;

/// The part of a container's interface that the pool needs.
pub(super) trait Held {
    /// Returns whether the container can run another job.
    fn is_usable(&mut self) -> bool;
}

/// The complete state of the pool.
#[derive(Debug)]
pub(super) struct State<S> {
    pub(super) rules: Rules,
    pub(super) open: bool,
    pub(super) budget: Budget,
    /// Idle containers, in the order in which they became idle.
    pub(super) idle: Vec<Idle<S>>,
    pub(super) out: HashMap<u64, Out>,
    pub(super) waiters: VecDeque<Waiter>,
    pub(super) kinds: HashMap<Kind, Known>,
    pub(super) habits: HashMap<Owner, Habit>,
    /// Containers that have served their only job, with the memory they hold. They are destroyed
    /// when that disturbs no job, and they count as leaving.
    pub(super) retired: VecDeque<Retired<S>>,
    /// Number of containers being destroyed; `leaving_memory` is the memory they hold.
    pub(super) leaving: usize,
    pub(super) leaving_memory: u64,
    pub(super) counts: PoolCounts,
    next: u64,
}

/// A container that is not in use.
#[derive(Debug)]
pub(super) struct Idle<S> {
    pub(super) sandbox: S,
    pub(super) owner: Owner,
    pub(super) since: Instant,
    pub(super) memory: u64,
}

/// A container that will not serve again and whose removal is not urgent.
#[derive(Debug)]
pub(super) struct Retired<S> {
    pub(super) sandbox: S,
    pub(super) kind: Kind,
    pub(super) memory: u64,
}

/// A container on loan.
#[derive(Debug)]
pub(super) struct Out {
    pub(super) owner: Owner,
    pub(super) since: Instant,
    pub(super) need: Need,
    pub(super) memory: u64,
}

/// An attempt that waits for a container.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) number: u64,
    pub(super) owner: Owner,
    pub(super) need: Need,
    /// True if its resources are reserved; it then only lacks a container.
    pub(super) admitted: bool,
}

/// Facts about the containers of one kind.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) image: Image,
    /// Memory that one holds when it is ready, in bytes.
    pub(super) memory: u64,
    /// Average time that a start takes.
    start: Option<Duration>,
    /// Number of starts under way.
    pub(super) starting: usize,
    /// Number of unused containers to keep ready because of a setting.
    pub(super) warm: usize,
    pub(super) wanted: Instant,
    failures: u32,
    /// Earliest time of the next start in advance.
    pub(super) not_before: Instant,
    unclean: u32,
}

/// A step for the pool to execute.
#[derive(Debug)]
pub(super) enum Step<S> {
    /// Give a container to a waiter.
    Lend { waiter: u64, loan: u64, sandbox: S },
    /// Start a container, which is assumed to hold `memory`.
    Start {
        kind: Kind,
        image: Image,
        memory: u64,
    },
    /// Destroy a container that holds `memory`.
    Destroy { sandbox: S, memory: u64 },
}

impl Known {
    fn new(image: &Image, now: Instant) -> Self {
        Self {
            image: image.clone(),
            memory: UNMEASURED.0,
            start: None,
            starting: 0,
            warm: 0,
            wanted: now,
            failures: 0,
            not_before: now,
            unclean: 0,
        }
    }

    /// Returns the time that a start takes.
    pub(super) fn start(&self) -> Duration {
        self.start.unwrap_or(UNMEASURED_START)
    }

    /// Returns whether each container of the kind serves only one job.
    pub(super) fn serves_once(&self, rules: &Rules) -> bool {
        rules.reuse == Reuse::Never || self.unclean >= UNCLEAN_IN_A_ROW
    }

    /// Returns the number of unused containers that should be ready.
    pub(super) fn target(&self, rules: &Rules, now: Instant) -> usize {
        let recent = now.saturating_duration_since(self.wanted) < rules.idle_for;
        if self.serves_once(rules) && recent {
            self.warm.max(rules.ahead)
        } else {
            self.warm
        }
    }
}

impl<S: Held> State<S> {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            budget: Budget::new(rules.total()),
            rules,
            open: true,
            idle: Vec::new(),
            out: HashMap::new(),
            waiters: VecDeque::new(),
            kinds: HashMap::new(),
            habits: HashMap::new(),
            retired: VecDeque::new(),
            leaving: 0,
            leaving_memory: 0,
            counts: PoolCounts::default(),
            next: 0,
        }
    }

    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Returns the group of containers that may serve a tenant's job.
    fn owner(&self, want: &Want) -> Owner {
        let kind = want.kind();
        let tenant = match self.rules.reuse {
            Reuse::Tenant => Some((want.namespace.clone(), want.tenant.clone())),
            Reuse::Never | Reuse::Any => None,
        };
        Owner { kind, tenant }
    }

    /// Adds a waiter. Also destroys idle containers of older builds of its image, which are not
    /// needed any more.
    pub(super) fn want(&mut self, want: &Want, now: Instant) -> (u64, Vec<Step<S>>) {
        let steps = self.outdate(&want.image);
        let kind = want.kind();
        let known = self.know(&kind, &want.image, now);
        known.wanted = now;
        let need = {
            let memory = known.memory;
            self.budget.fit(want.need(), memory)
        };
        let owner = self.owner(want);
        let habit = self.habits.entry(owner.clone());
        habit.or_insert_with(|| Habit::new(now)).used(now);
        let number = self.number();
        self.waiters.push_back(Waiter {
            number,
            owner,
            need,
            admitted: false,
        });
        (number, steps)
    }

    pub(super) fn know(&mut self, kind: &Kind, image: &Image, now: Instant) -> &mut Known {
        self.kinds
            .entry(kind.clone())
            .or_insert_with(|| Known::new(image, now))
    }

    /// Destroys idle containers of other builds of this image.
    pub(super) fn outdate(&mut self, image: &Image) -> Vec<Step<S>> {
        let old: Vec<Kind> = self
            .kinds
            .iter()
            .filter(|(kind, known)| known.image.name == image.name && kind.digest != image.digest)
            .map(|(kind, _)| kind.clone())
            .collect();
        if old.is_empty() {
            return Vec::new();
        }
        for kind in &old {
            if let Some(known) = self.kinds.get_mut(kind) {
                known.warm = 0;
                known.unclean = 0;
            }
        }
        let gone = self.idle_where(|idle| old.contains(&idle.owner.kind));
        self.counts.evicted += gone.len() as u64;
        gone.into_iter().map(|idle| self.leave(idle)).collect()
    }

    /// Destroys idle containers with one of these GPUs, and suspends starts in advance of their
    /// kinds.
    pub(super) fn withdraw(&mut self, failed: &[String], now: Instant) -> Vec<Step<S>> {
        let has = |kind: &Kind| kind.shape.gpus.iter().any(|gpu| failed.contains(gpu));
        for (_, known) in self.kinds.iter_mut().filter(|(kind, _)| has(kind)) {
            known.not_before = now + self.rules.idle_for;
        }
        let gone = self.idle_where(|idle| has(&idle.owner.kind));
        self.counts.spoiled += gone.len() as u64;
        gone.into_iter().map(|idle| self.leave(idle)).collect()
    }

    /// Removes and returns the idle containers that satisfy the predicate.
    pub(super) fn idle_where(
        &mut self,
        mut gone: impl FnMut(&mut Idle<S>) -> bool,
    ) -> Vec<Idle<S>> {
        let mut taken = Vec::new();
        let mut at = 0;
        while at < self.idle.len() {
            if gone(&mut self.idle[at]) {
                taken.push(self.idle.remove(at));
            } else {
                at += 1;
            }
        }
        taken
    }

    /// Removes the waiter with this number, and releases its reservation.
    pub(super) fn forget(&mut self, number: u64) -> Option<Waiter> {
        let at = self
            .waiters
            .iter()
            .position(|waiter| waiter.number == number)?;
        let waiter = self.waiters.remove(at)?;
        if waiter.admitted {
            self.budget.release(waiter.need);
        }
        Some(waiter)
    }

    /// Adds a newly started container. Its memory is the measured value, if known.
    pub(super) fn started(&mut self, start: Started<'_, S>, now: Instant) {
        let Started {
            kind,
            sandbox,
            thought,
            found,
            took,
        } = start;
        let memory = found.unwrap_or(thought).max(1);
        self.budget.correct(thought, memory);
        self.counts.started += 1;
        if let Some(known) = self.kinds.get_mut(kind) {
            known.starting -= 1;
            known.memory = memory;
            known.start = Some(average(known.start, took));
            known.failures = 0;
        }
        let owner = Owner {
            kind: kind.clone(),
            tenant: None,
        };
        self.idle.push(Idle {
            sandbox,
            owner,
            since: now,
            memory,
        });
    }

    /// Records a failed start, and removes the admitted waiter of this kind that has waited
    /// longest; its number is returned so that it gets the error. `jitter` is in 0..1.
    pub(super) fn failed(
        &mut self,
        kind: &Kind,
        thought: u64,
        jitter: f64,
        now: Instant,
    ) -> Option<u64> {
        self.budget.remove(thought);
        self.counts.failed += 1;
        if let Some(known) = self.kinds.get_mut(kind) {
            known.starting -= 1;
            let pause = FIRST_PAUSE.saturating_mul(1 << known.failures.min(16));
            known.failures += 1;
            known.not_before = now + pause.min(LONGEST_PAUSE).mul_f64(0.5 + jitter / 2.0);
        }
        let number = self
            .waiters
            .iter()
            .find(|waiter| waiter.admitted && waiter.owner.kind == *kind)?
            .number;
        self.forget(number).map(|waiter| waiter.number)
    }

    /// Records that a container is removed.
    pub(super) fn gone(&mut self, memory: u64) {
        self.budget.remove(memory);
        self.leaving -= 1;
        self.leaving_memory -= memory;
    }

    /// Records the end of a loan. The memory that the container holds now, if known, shows whether
    /// the job leaked memory in it.
    pub(super) fn returned(&mut self, back: Returned<S>, now: Instant) -> Option<Step<S>> {
        let Returned {
            loan,
            mut sandbox,
            clean,
            holds,
        } = back;
        let out = self.out.remove(&loan)?;
        self.budget.release(out.need);
        if let Some(habit) = self.habits.get_mut(&out.owner) {
            habit.returned(now.saturating_duration_since(out.since));
        }
        let cap = out.owner.kind.shape.memory.0;
        let grown = holds.is_some_and(|holds| holds > out.memory + cap / GROWTH_PART);
        let good = clean && !grown && sandbox.is_usable();
        if let Some(known) = self.kinds.get_mut(&out.owner.kind) {
            known.unclean = if good { 0 } else { known.unclean + 1 };
        }
        if good && self.open && self.keeps() {
            self.idle.push(Idle {
                sandbox,
                owner: out.owner,
                since: now,
                memory: out.memory,
            });
            return None;
        }
        let counter = match (good, self.rules.reuse) {
            (false, _) if grown => &mut self.counts.grown,
            (false, _) => &mut self.counts.spoiled,
            (true, Reuse::Never) => &mut self.counts.retired,
            (true, Reuse::Tenant | Reuse::Any) => &mut self.counts.expired,
        };
        *counter += 1;
        self.leaving += 1;
        self.leaving_memory += out.memory;
        // An attempt that waits for a GPU waits until the container that had it is removed.
        if good && self.open && out.owner.kind.shape.gpus.is_empty() {
            self.retired.push_back(Retired {
                sandbox,
                kind: out.owner.kind,
                memory: out.memory,
            });
            return None;
        }
        Some(Step::Destroy {
            sandbox,
            memory: out.memory,
        })
    }

    /// Takes back a container whose waiter has gone. The container is unused.
    pub(super) fn unused(&mut self, loan: u64, sandbox: S, now: Instant) {
        if let Some(out) = self.out.remove(&loan) {
            self.budget.release(out.need);
            self.idle.push(Idle {
                sandbox,
                owner: out.owner,
                since: now,
                memory: out.memory,
            });
        }
    }

    fn keeps(&self) -> bool {
        self.rules.reuse != Reuse::Never && !self.rules.idle_for.is_zero()
    }

    pub(super) fn leave(&mut self, idle: Idle<S>) -> Step<S> {
        self.leaving += 1;
        self.leaving_memory += idle.memory;
        Step::Destroy {
            sandbox: idle.sandbox,
            memory: idle.memory,
        }
    }
}

/// A successful start.
#[derive(Debug)]
pub(super) struct Started<'a, S> {
    pub(super) kind: &'a Kind,
    pub(super) sandbox: S,
    /// The memory it was assumed to hold.
    pub(super) thought: u64,
    /// The memory it holds, if it was measured.
    pub(super) found: Option<u64>,
    pub(super) took: Duration,
}

/// A returned container.
#[derive(Debug)]
pub(super) struct Returned<S> {
    pub(super) loan: u64,
    pub(super) sandbox: S,
    pub(super) clean: bool,
    pub(super) holds: Option<u64>,
}
