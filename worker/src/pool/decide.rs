//! The pool's planner: decides which waiter gets which container, which containers to start and
//! which to destroy.
//!
//! Memory and CPU are reserved in the order of the requests, so that small jobs cannot overtake a
//! large one forever. A container is not bound to the attempt that caused its start. One start is
//! in flight for each waiting attempt; the first container to become ready, new or returned, serves
//! the first attempt that it fits. An idle container is destroyed only for a waiting attempt, the
//! one with the lowest retention score first, and only if no fitting container is expected back
//! sooner than the replacement would take. Keeping containers ready in advance never destroys
//! another container.
//!
//! Starting and destroying a container costs more than most jobs. For containers that serve one job
//! each, the planner delays starts and removals that are not urgent until the jobs of the kind
//! pause, as long as enough containers are ready and the budget is not exhausted.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use sandhog_common::config::Reuse;

use super::budget::Short;
use super::habit::{Habit, worth};
use super::state::{Held, Known, Out, Retired, State, Step};
use super::want::{Kind, Owner};

/// Number of concurrent starts in advance. The engine works on few at a time anyway.
const AT_ONCE: usize = 4;

/// Number of concurrent removals of retired containers, for the same reason.
const REMOVED_AT_ONCE: usize = 2;

/// Jobs of a kind pause if none has been requested for this long.
const LULL: Duration = Duration::from_millis(100);

/// While jobs do not pause, one in this many of the containers to keep ready is enough.
const ENOUGH: usize = 4;

/// Decayed number of uses below which a usage record is deleted.
const FORGOTTEN: f64 = 0.01;

impl<S: Held> State<S> {
    /// Returns every step that is possible now.
    pub(super) fn settle(&mut self, now: Instant) -> Vec<Step<S>> {
        let mut steps = Vec::new();
        let blocked = self.admit();
        // Before idle containers are destroyed to make room: a container that fits a waiter is no
        // longer idle then.
        self.lend(now, &mut steps);
        if let Some((kind, short)) = blocked {
            self.make_room(&kind, short, now, &mut steps);
        }
        let short = self.start_wanted(now, &mut steps);
        // Starts in advance must not take room that waiters need.
        let blocked = short || self.waiters.iter().any(|waiter| !waiter.admitted);
        if self.open && !blocked {
            self.start_ahead(now, &mut steps);
        }
        self.clear_out(blocked || !self.open, now, &mut steps);
        steps
    }

    /// Returns the earliest time at which postponed work may begin because jobs pause; `None` if no
    /// work is postponed.
    pub(super) fn lull(&self, now: Instant) -> Option<Instant> {
        let waits = |kind: &Kind, known: &Known| {
            self.retired.iter().any(|retired| retired.kind == *kind)
                || (known.serves_once(&self.rules)
                    && self.ready(kind) < known.target(&self.rules, known.wanted))
        };
        self.kinds
            .iter()
            .filter(|(kind, known)| waits(kind, known))
            .map(|(_, known)| known.wanted + LULL)
            // Work whose time has come waits for another reason.
            .filter(|at| *at > now)
            .min()
    }

    /// Returns whether jobs of this kind pause.
    fn pauses(&self, kind: &Kind, now: Instant) -> bool {
        self.kinds
            .get(kind)
            .is_none_or(|known| now.saturating_duration_since(known.wanted) >= LULL)
    }

    /// Destroys retired containers: few at a time, and only while jobs pause, unless there are
    /// many. If `wanted`, a waiter needs their room, and all are destroyed at once.
    fn clear_out(&mut self, wanted: bool, now: Instant, steps: &mut Vec<Step<S>>) {
        while let Some(oldest) = self.retired.front() {
            let going = self.leaving - self.retired.len();
            let many = self.retired.len() > self.rules.ahead;
            let due = going < REMOVED_AT_ONCE && (many || self.pauses(&oldest.kind, now));
            if !wanted && !due {
                return;
            }
            if let Some(Retired {
                sandbox, memory, ..
            }) = self.retired.pop_front()
            {
                steps.push(Step::Destroy { sandbox, memory });
            }
        }
    }

    /// Removes containers that have been idle for too long or have died, and deletes records of
    /// kinds and owners that are no longer used.
    pub(super) fn sweep(&mut self, now: Instant) -> Vec<Step<S>> {
        let mut kept: HashMap<Kind, usize> = self
            .kinds
            .iter()
            .map(|(kind, known)| (kind.clone(), known.target(&self.rules, now)))
            .collect();
        // The newest first, so that the newest ones are kept ready.
        self.idle.reverse();
        let idle_for = self.rules.idle_for;
        let (mut expired, mut spoiled) = (0, 0);
        let gone = self.idle_where(|idle| {
            if !idle.sandbox.is_usable() {
                spoiled += 1;
                return true;
            }
            let left = kept.get_mut(&idle.owner.kind);
            if let Some(left) = left.filter(|left| idle.owner.tenant.is_none() && **left > 0) {
                *left -= 1;
                return false;
            }
            let old = now.saturating_duration_since(idle.since) >= idle_for;
            expired += u64::from(old);
            old
        });
        self.idle.reverse();
        self.counts.expired += expired;
        self.counts.spoiled += spoiled;
        let steps = gone.into_iter().map(|idle| self.leave(idle)).collect();
        self.habits.retain(|_, habit| habit.uses(now) > FORGOTTEN);
        let used: Vec<Kind> = (self.idle.iter().map(|idle| &idle.owner))
            .chain(self.out.values().map(|out| &out.owner))
            .chain(self.waiters.iter().map(|waiter| &waiter.owner))
            .chain(self.habits.keys())
            .map(|owner| owner.kind.clone())
            .collect();
        self.kinds.retain(|kind, known| {
            known.starting > 0 || known.target(&self.rules, now) > 0 || used.contains(kind)
        });
        steps
    }

    /// Reserves the resources of waiting jobs, strictly in their order. Returns the kind of the
    /// first job that lacks memory, and the missing amount.
    fn admit(&mut self) -> Option<(Kind, u64)> {
        for waiter in self.waiters.iter_mut().filter(|waiter| !waiter.admitted) {
            match self.budget.admits(waiter.need) {
                Ok(()) => {
                    self.budget.admit(waiter.need);
                    waiter.admitted = true;
                }
                Err(Short::Cpu) => return None,
                Err(Short::Memory(short)) => return Some((waiter.owner.kind.clone(), short)),
            }
        }
        None
    }

    /// Destroys idle containers to free the memory that a waiting job lacks, if that frees enough,
    /// and unless a running job is expected to free it sooner.
    fn make_room(&mut self, kind: &Kind, short: u64, now: Instant, steps: &mut Vec<Step<S>>) {
        let idle: u64 = self.idle.iter().map(|idle| idle.memory).sum();
        let enough = |out: &Out| out.need.memory >= short;
        if self.leaving_memory + idle >= short && !self.comes_back(kind, enough, now) {
            while self.leaving_memory < short && self.evict(now, steps) {}
        }
    }

    /// Gives idle containers to the waiters that they fit: first the most recently used container
    /// of the same owner, whose caches are warmest, else an unused container of the kind.
    fn lend(&mut self, now: Instant, steps: &mut Vec<Step<S>>) {
        let waiting: Vec<(u64, Owner)> = self
            .waiters
            .iter()
            .filter(|waiter| waiter.admitted)
            .map(|waiter| (waiter.number, waiter.owner.clone()))
            .collect();
        for (number, owner) in waiting {
            while let Some(at) = self.fitting(&owner) {
                let mut idle = self.idle.remove(at);
                if !idle.sandbox.is_usable() {
                    self.counts.spoiled += 1;
                    steps.push(self.leave(idle));
                    continue;
                }
                let Some(place) = self.waiters.iter().position(|w| w.number == number) else {
                    break;
                };
                let Some(waiter) = self.waiters.remove(place) else {
                    break;
                };
                let loan = self.number();
                self.counts.lent += 1;
                self.out.insert(
                    loan,
                    Out {
                        owner,
                        since: now,
                        need: waiter.need,
                        memory: idle.memory,
                    },
                );
                steps.push(Step::Lend {
                    waiter: number,
                    loan,
                    sandbox: idle.sandbox,
                });
                break;
            }
        }
    }

    fn fitting(&self, owner: &Owner) -> Option<usize> {
        let own = self.idle.iter().rposition(|idle| idle.owner == *owner);
        own.or_else(|| {
            self.idle
                .iter()
                .position(|idle| idle.owner.tenant.is_none() && idle.owner.kind == owner.kind)
        })
    }

    /// Starts one container for each waiter that lacks one. Evicts an idle container where that is
    /// faster than waiting for a return. Returns whether at least one waiter got no start.
    fn start_wanted(&mut self, now: Instant, steps: &mut Vec<Step<S>>) -> bool {
        let mut under_way: HashMap<Kind, usize> = HashMap::new();
        let mut short = 0;
        let owners: Vec<Owner> = self
            .waiters
            .iter()
            .filter(|waiter| waiter.admitted)
            .map(|waiter| waiter.owner.clone())
            .collect();
        for owner in owners {
            let left = under_way.entry(owner.kind.clone()).or_insert_with(|| {
                self.kinds
                    .get(&owner.kind)
                    .map_or(0, |known| known.starting)
            });
            if *left > 0 {
                *left -= 1;
            } else if !self.start(&owner.kind, true, steps) {
                short += 1;
                let same = |out: &Out| out.owner == owner && self.rules.reuse != Reuse::Never;
                if self.leaving < short && !self.comes_back(&owner.kind, same, now) {
                    self.evict(now, steps);
                }
            }
        }
        short > 0
    }

    /// Starts containers in advance until each kind has its target number ready.
    fn start_ahead(&mut self, now: Instant, steps: &mut Vec<Step<S>>) {
        let mut wanted: Vec<(Kind, usize)> = self
            .kinds
            .iter()
            .filter(|(_, known)| known.not_before <= now)
            .map(|(kind, known)| {
                let target = known.target(&self.rules, now);
                let later = known.serves_once(&self.rules) && !self.pauses(kind, now);
                let target = if later {
                    target.div_ceil(ENOUGH)
                } else {
                    target
                };
                (kind.clone(), target)
            })
            .filter(|(_, target)| *target > 0)
            .collect();
        // Kinds that lack the most come first. The digest makes the order independent of the map.
        wanted.sort_by_key(|(kind, target)| {
            (
                self.ready(kind).saturating_sub(*target),
                kind.digest.clone(),
            )
        });
        for (kind, target) in wanted {
            while self.ready(&kind) < target
                && self.starting() < AT_ONCE
                && self.start(&kind, false, steps)
            {}
        }
    }

    /// Returns the number of unused containers of a kind, including those being started, minus the
    /// number of admitted waiters for that kind.
    fn ready(&self, kind: &Kind) -> usize {
        let idle = self
            .idle
            .iter()
            .filter(|idle| idle.owner.tenant.is_none() && idle.owner.kind == *kind)
            .count();
        let starting = self.kinds.get(kind).map_or(0, |known| known.starting);
        let waiting = self
            .waiters
            .iter()
            .filter(|waiter| waiter.admitted && waiter.owner.kind == *kind)
            .count();
        (idle + starting).saturating_sub(waiting)
    }

    pub(super) fn starting(&self) -> usize {
        self.kinds.values().map(|known| known.starting).sum()
    }

    /// Starts a container if the budget has room for it. A `wanted` container is also started if no
    /// other container exists, because then nothing could make room.
    fn start(&mut self, kind: &Kind, wanted: bool, steps: &mut Vec<Step<S>>) -> bool {
        let alone = self.budget.taken().containers == 0;
        let Some(known) = self.kinds.get_mut(kind) else {
            return false;
        };
        let room = self.budget.holds(known.memory) || (wanted && alone);
        if !room {
            return false;
        }
        known.starting += 1;
        self.budget.add(known.memory);
        steps.push(Step::Start {
            kind: kind.clone(),
            image: known.image.clone(),
            memory: known.memory,
        });
        true
    }

    /// Returns whether a loan that satisfies `of` is expected back sooner than a container of this
    /// kind could be started.
    fn comes_back(&self, kind: &Kind, of: impl Fn(&Out) -> bool, now: Instant) -> bool {
        let Some(known) = self.kinds.get(kind) else {
            return false;
        };
        self.out
            .values()
            .filter(|out| of(out))
            .filter_map(|out| self.habits.get(&out.owner)?.remaining(out.since, now))
            .any(|remaining| remaining < known.start())
    }

    /// Destroys the idle container with the lowest retention score. Returns whether there was one.
    fn evict(&mut self, now: Instant, steps: &mut Vec<Step<S>>) -> bool {
        let mut ranks: HashMap<&Owner, usize> = HashMap::new();
        let mut least: Option<(f64, usize)> = None;
        // The newest gets the first rank, so that of several equal containers the oldest has the
        // lowest score.
        for (at, idle) in self.idle.iter().enumerate().rev() {
            let rank = ranks.entry(&idle.owner).or_default();
            *rank += 1;
            let known = self.kinds.get(&idle.owner.kind);
            let uses = self.uses(&idle.owner, now);
            let start = known.map_or_else(Default::default, Known::start);
            let worth = worth(uses, *rank, start, idle.memory);
            if least.is_none_or(|(smallest, _)| worth <= smallest) {
                least = Some((worth, at));
            }
        }
        let Some((_, at)) = least else { return false };
        let idle = self.idle.remove(at);
        self.counts.evicted += 1;
        steps.push(self.leave(idle));
        true
    }

    /// Returns the recent uses of an owner's containers. For an unused container these are the uses
    /// of all owners of its kind, because it may serve any of them.
    fn uses(&self, owner: &Owner, now: Instant) -> f64 {
        match owner.tenant {
            Some(_) => self.habits.get(owner).map_or(0.0, |habit| habit.uses(now)),
            None => self
                .habits
                .iter()
                .filter(|(other, _)| other.kind == owner.kind)
                .map(|(_, habit): (_, &Habit)| habit.uses(now))
                .sum(),
        }
    }
}
