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

use sandhog_config::Reuse;

use super::budget::Shortage;
use super::checkout_stats::{CheckoutStats, retention_score};
use super::request::{ContainerKind, Owner};
use super::state::{
    Action, Checkout, KindEntry, ModelDemand, PoolState, Poolable, RetiredSandbox, SandboxWaiter,
};

/// Number of concurrent starts in advance. The engine works on few at a time anyway.
const MAX_CONCURRENT_STARTS: usize = 4;

/// Number of concurrent removals of retired containers, for the same reason.
const MAX_CONCURRENT_REMOVALS: usize = 2;

/// Jobs of a kind pause if none has been requested for this long.
const IDLE_GAP: Duration = Duration::from_millis(100);

/// While jobs do not pause, one in this many of the containers to keep ready is enough.
const BUSY_READY_DIVISOR: usize = 4;

/// While jobs of new tenants follow one another, one unused container is kept ready for at least
/// this many that belong to a tenant.
const BOUND_PER_UNUSED: usize = 8;

/// Time for which an eviction shows that idle containers are scarce.
const EVICTION_WINDOW: Duration = Duration::from_secs(1);

/// Decayed number of uses below which a usage record is deleted.
const MIN_DECAYED_USES: f64 = 0.01;

/// A kind that lacks memory, and the number of missing bytes.
type Lack = (ContainerKind, u64);

/// Chooses the next actions of a pool from its state at one moment.
#[derive(Debug)]
pub(super) struct Planner<'a, S> {
    state: &'a mut PoolState<S>,
    now: Instant,
    actions: Vec<Action<S>>,
}

impl<'a, S: Poolable> Planner<'a, S> {
    pub(super) fn new(state: &'a mut PoolState<S>, now: Instant) -> Self {
        Self {
            state,
            now,
            actions: Vec::new(),
        }
    }

    /// Returns every action that is possible now.
    pub(super) fn settle(mut self) -> Vec<Action<S>> {
        let (full, blocked) = self.reserve_for_waiters();
        self.hold_memory();
        // Before idle containers are destroyed to make room: a container that fits a waiter is no
        // longer idle then.
        self.check_out_idle();
        let mut wants_memory = false;
        for (kind, missing) in full {
            wants_memory |= !self.make_room_in(&kind, missing);
        }
        if let Some((kind, missing)) = blocked {
            wants_memory |= !self.make_room(&kind, missing);
        }
        self.state.wants_memory = wants_memory;
        let short = self.start_for_waiters();
        // Starts in advance must not take room that waiters need.
        let waiting = |waiter: &SandboxWaiter| {
            !waiter.has_reservation && waiter.model != Some(ModelDemand::Warm)
        };
        let blocked = short || self.state.waiters.iter().any(waiting);
        if self.state.open && !blocked {
            self.make_places_ahead();
            self.start_ahead();
        }
        self.destroy_retired(blocked || !self.state.open);
        self.trim_idle();
        self.actions
    }

    /// Destroys idle containers while containers and jobs hold more memory than the budget has. A
    /// container may hold more after a job than before.
    fn trim_idle(&mut self) {
        let excess = |state: &PoolState<S>| {
            let staying = state
                .budget
                .taken()
                .memory
                .saturating_sub(state.leaving_memory);
            staying > state.budget.total().memory
        };
        while excess(self.state) && self.evict(|_| true) {}
        let kinds: Vec<ContainerKind> = (self.state.kinds.iter())
            .filter(|(_, entry)| entry.room.is_some())
            .map(|(kind, _)| kind.clone())
            .collect();
        for kind in kinds {
            let leaving = |state: &PoolState<S>| {
                let entry = state.kinds.get(&kind);
                entry.map_or(0, |entry| entry.leaving_memory)
            };
            while (self.state.room_shortage(&kind, 0))
                .is_some_and(|short| short > leaving(self.state))
                && self.evict(|other| other.kind == kind)
            {}
        }
    }

    /// Returns the earliest time at which postponed work may begin because jobs pause; `None` if no
    /// work is postponed.
    pub(super) fn next_idle_gap(&self) -> Option<Instant> {
        let state = &*self.state;
        let waits = |kind: &ContainerKind, entry: &KindEntry| {
            state.retired.iter().any(|retired| retired.kind == *kind)
                || (entry.serves_once(&state.rules)
                    && self.ready(kind) < entry.target(&state.rules, entry.last_requested))
        };
        state
            .kinds
            .iter()
            .filter(|(kind, entry)| waits(kind, entry))
            .map(|(_, entry)| entry.last_requested + IDLE_GAP)
            // Work whose time has come waits for another reason.
            .filter(|at| *at > self.now)
            .min()
    }

    /// Returns whether jobs of this kind pause.
    fn is_pausing(&self, kind: &ContainerKind) -> bool {
        self.state.kinds.get(kind).is_none_or(|entry| {
            self.now.saturating_duration_since(entry.last_requested) >= IDLE_GAP
        })
    }

    /// Destroys retired containers: few at a time, and only while jobs pause, unless there are
    /// many. If `wanted`, a waiter needs their room, and all are destroyed at once.
    fn destroy_retired(&mut self, wanted: bool) {
        while let Some(oldest) = self.state.retired.front() {
            let removing = self.state.leaving - self.state.retired.len();
            let many = self.state.retired.len() > self.state.rules.ahead;
            let due = removing < MAX_CONCURRENT_REMOVALS && (many || self.is_pausing(&oldest.kind));
            if !wanted && !due {
                return;
            }
            if let Some(RetiredSandbox {
                sandbox,
                kind,
                memory,
            }) = self.state.retired.pop_front()
            {
                let destroy = Action::Destroy {
                    kind,
                    sandbox,
                    memory,
                };
                self.actions.push(destroy);
            }
        }
    }

    /// Removes containers that have been idle for too long or have died, and deletes records of
    /// kinds and owners that are no longer used.
    pub(super) fn sweep(self) -> Vec<Action<S>> {
        let Self { state, now, .. } = self;
        let mut kept: HashMap<ContainerKind, usize> = state
            .kinds
            .iter()
            .map(|(kind, entry)| (kind.clone(), entry.target(&state.rules, now)))
            .collect();
        // The newest first, so that the newest ones are kept ready.
        state.idle.reverse();
        let idle_for = state.rules.idle_for;
        let (mut expired, mut spoiled) = (0, 0);
        let removed = state.remove_idle_where(|idle| {
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
        state.idle.reverse();
        state.counts.expired += expired;
        state.counts.spoiled += spoiled;
        let removed = removed.into_iter();
        let actions = removed.map(|idle| state.begin_removal(idle)).collect();
        state
            .owner_stats
            .retain(|_, stats| stats.uses(now) > MIN_DECAYED_USES);
        let used: Vec<ContainerKind> = (state.idle.iter().map(|idle| &idle.owner))
            .chain(state.checkouts.values().map(|checkout| &checkout.owner))
            .chain(state.waiters.iter().map(|waiter| &waiter.owner))
            .chain(state.owner_stats.keys())
            .map(|owner| &owner.kind)
            .chain(state.holds.values().map(|(kind, _)| kind))
            .cloned()
            .collect();
        let rules = &state.rules;
        state.kinds.retain(|kind, entry| {
            entry.starting > 0
                || entry.leaving_memory > 0
                || entry.target(rules, now) > 0
                || used.contains(kind)
        });
        actions
    }

    /// Reserves the resources of waiting jobs, strictly in their order. Returns the kinds whose
    /// room is full and the kind of the first job for which the budget lacks memory, each with the
    /// missing amount. A full room delays only the jobs of its kind.
    fn reserve_for_waiters(&mut self) -> (Vec<Lack>, Option<Lack>) {
        let state = &mut *self.state;
        let mut full: Vec<Lack> = Vec::new();
        for at in 0..state.waiters.len() {
            let is_next = |waiter: &&SandboxWaiter| {
                !waiter.has_reservation && waiter.model != Some(ModelDemand::Warm)
            };
            let Some(waiter) = state.waiters.get(at).filter(is_next) else {
                continue;
            };
            let kind = &waiter.owner.kind;
            // The room may have changed since the request.
            let need = state.clamp_to_room(kind, waiter.need);
            if full.iter().any(|(other, _)| other == kind) {
                continue;
            }
            if let Some(missing) = state.room_shortage(kind, need.memory) {
                full.push((kind.clone(), missing));
                continue;
            }
            match state.budget.check_reserve(need) {
                Ok(()) => state.budget.reserve(need),
                Err(Shortage::Cpu) => return (full, None),
                Err(Shortage::Memory(missing)) => return (full, Some((kind.clone(), missing))),
            }
            if let Some(waiter) = state.waiters.get_mut(at) {
                waiter.need = need;
                waiter.has_reservation = true;
            }
        }
        if full.is_empty() {
            self.reserve_for_warm_models();
        }
        (full, None)
    }

    /// Reserves the memory of model servers for which no job waits, as far as it is free.
    fn reserve_for_warm_models(&mut self) {
        let state = &mut *self.state;
        for at in 0..state.waiters.len() {
            let Some(waiter) = state.waiters.get(at).filter(|w| !w.has_reservation) else {
                continue;
            };
            let need = waiter.need;
            if state
                .room_shortage(&waiter.owner.kind, need.memory)
                .is_none()
                && state.budget.check_reserve(need).is_ok()
            {
                state.budget.reserve(need);
                if let Some(waiter) = state.waiters.get_mut(at) {
                    waiter.has_reservation = true;
                }
            }
        }
    }

    /// Gives the reserved memory to the model servers that wait for it.
    fn hold_memory(&mut self) {
        let is_held = |waiter: &SandboxWaiter| waiter.model.is_some() && waiter.has_reservation;
        while let Some(at) = self.state.waiters.iter().position(is_held) {
            let Some(waiter) = self.state.waiters.remove(at) else {
                return;
            };
            let hold = (waiter.owner.kind, waiter.need);
            self.state.holds.insert(waiter.number, hold);
            self.actions.push(Action::Hold {
                waiter: waiter.number,
            });
        }
    }

    /// Destroys idle containers of a kind to free the memory that its room lacks, as
    /// [`Planner::make_room`] does for the budget.
    fn make_room_in(&mut self, kind: &ContainerKind, missing: u64) -> bool {
        let of_kind = |other: &Owner| other.kind == *kind;
        let idle = self.state.idle.iter();
        let idle: u64 = idle
            .filter(|idle| of_kind(&idle.owner))
            .map(|idle| idle.memory)
            .sum();
        let leaving = |state: &PoolState<S>| {
            let entry = state.kinds.get(kind);
            entry.map_or(0, |entry| entry.leaving_memory)
        };
        let enough =
            |checkout: &Checkout| checkout.need.memory >= missing && of_kind(&checkout.owner);
        let is_expected = self.return_expected(kind, enough);
        let suffices = leaving(self.state) + idle >= missing;
        if suffices && !is_expected {
            while leaving(self.state) < missing && self.evict(of_kind) {}
        }
        suffices || is_expected
    }

    /// Destroys idle containers to free the memory that a waiting job lacks, if that frees enough,
    /// and unless a running job is expected to free it sooner. Returns `false` if neither frees
    /// enough.
    fn make_room(&mut self, kind: &ContainerKind, missing: u64) -> bool {
        let idle: u64 = self.state.idle.iter().map(|idle| idle.memory).sum();
        let enough = |checkout: &Checkout| checkout.need.memory >= missing;
        let is_expected = self.return_expected(kind, enough);
        let suffices = self.state.leaving_memory + idle >= missing;
        if suffices && !is_expected {
            while self.state.leaving_memory < missing && self.evict(|_| true) {}
        }
        suffices || is_expected
    }

    /// Gives idle containers to the waiters that they fit: first the most recently used container
    /// of the same owner, whose caches are warmest, else an unused container of the kind.
    fn check_out_idle(&mut self) {
        let waiting: Vec<(u64, Owner)> = self
            .state
            .waiters
            .iter()
            .filter(|waiter| waiter.lacks_container())
            .map(|waiter| (waiter.number, waiter.owner.clone()))
            .collect();
        for (number, owner) in waiting {
            while let Some(at) = self.find_fitting(&owner) {
                let state = &mut *self.state;
                let mut idle = state.idle.remove(at);
                if !idle.sandbox.is_usable() {
                    state.counts.spoiled += 1;
                    self.actions.push(state.begin_removal(idle));
                    continue;
                }
                let Some(place) = state.waiters.iter().position(|w| w.number == number) else {
                    break;
                };
                let Some(waiter) = state.waiters.remove(place) else {
                    break;
                };
                let checkout_id = state.next_number();
                state.counts.lent += 1;
                let is_fresh =
                    idle.owner.tenant != owner.tenant || state.rules.reuse == Reuse::Never;
                let expects_reuse = self.expects_reuse(&owner.kind, is_fresh);
                let state = &mut *self.state;
                if is_fresh && let Some(entry) = state.kinds.get_mut(&owner.kind) {
                    entry.note_fresh_checkout(self.now);
                }
                state.checkouts.insert(
                    checkout_id,
                    Checkout {
                        owner,
                        since: self.now,
                        need: waiter.need,
                        memory: idle.memory,
                        fresh_memory: idle.fresh_memory,
                    },
                );
                self.actions.push(Action::CheckOut {
                    waiter: number,
                    checkout_id,
                    sandbox: idle.sandbox,
                    expects_reuse,
                });
                break;
            }
        }
    }

    /// Returns whether a container is expected to serve a further job. One that was just bound to a
    /// tenant is not, while idle containers are evicted for jobs of new tenants.
    fn expects_reuse(&self, kind: &ContainerKind, is_fresh: bool) -> bool {
        let state = &*self.state;
        let entry = state.kinds.get(kind);
        let serves_once = entry.is_some_and(|entry| entry.serves_once(&state.rules));
        let evicts = (state.last_eviction)
            .is_some_and(|at| self.now.saturating_duration_since(at) < EVICTION_WINDOW);
        !(serves_once || is_fresh && evicts)
    }

    fn find_fitting(&self, owner: &Owner) -> Option<usize> {
        let idle = &self.state.idle;
        let own = idle.iter().rposition(|idle| idle.owner == *owner);
        own.or_else(|| {
            idle.iter()
                .position(|idle| idle.owner.tenant.is_none() && idle.owner.kind == owner.kind)
        })
    }

    /// Starts one container for each waiter that lacks one. Evicts an idle container where that is
    /// faster than waiting for a return. Returns whether at least one waiter got no start.
    fn start_for_waiters(&mut self) -> bool {
        let mut in_flight: HashMap<ContainerKind, usize> = HashMap::new();
        let mut short = 0;
        let owners: Vec<Owner> = self
            .state
            .waiters
            .iter()
            .filter(|waiter| waiter.lacks_container())
            .map(|waiter| waiter.owner.clone())
            .collect();
        let reuse = self.state.rules.reuse;
        for owner in owners {
            let kinds = &self.state.kinds;
            let left = in_flight
                .entry(owner.kind.clone())
                .or_insert_with(|| kinds.get(&owner.kind).map_or(0, |entry| entry.starting));
            if *left > 0 {
                *left -= 1;
            } else if !self.start(&owner.kind, true) {
                short += 1;
                let same = |checkout: &Checkout| checkout.owner == owner && reuse != Reuse::Never;
                if self.state.leaving < short && !self.return_expected(&owner.kind, same) {
                    let is_full = self.lacks_room_for_one(&owner.kind);
                    self.evict(|other| !is_full || other.kind == owner.kind);
                }
            }
        }
        short > 0
    }

    /// Destroys idle containers of tenants to make places for the containers that are to be ready
    /// for new tenants. While jobs of new tenants follow one another closely, each of them takes a
    /// place from another tenant in any case.
    fn make_places_ahead(&mut self) {
        let kinds: Vec<ContainerKind> = (self.state.kinds.iter())
            .filter(|(_, entry)| entry.has_many_tenants(self.now))
            .map(|(kind, _)| kind.clone())
            .collect();
        for kind in kinds {
            let Some(entry) = self.state.kinds.get(&kind) else {
                continue;
            };
            let (memory, target) = (entry.memory, self.target(&kind, entry));
            let missing = target.saturating_sub(self.ready(&kind));
            // Each removal under way makes a place.
            let wanted = missing.saturating_sub(self.state.leaving);
            for _ in 0..wanted {
                let is_full = self.lacks_room_for_one(&kind);
                let no_place = !self.state.budget.fits_container(memory);
                let is_other =
                    |owner: &Owner| owner.tenant.is_some() && (!is_full || owner.kind == kind);
                if !(is_full || no_place) || !self.evict(is_other) {
                    break;
                }
            }
        }
    }

    /// Starts containers in advance until each kind has its target number ready.
    fn start_ahead(&mut self) {
        let state = &*self.state;
        let mut wanted: Vec<(ContainerKind, usize)> = state
            .kinds
            .iter()
            .filter(|(_, entry)| entry.not_before <= self.now)
            .map(|(kind, entry)| {
                let target = self.target(kind, entry);
                let later = entry.serves_once(&state.rules) && !self.is_pausing(kind);
                let target = if later {
                    target.div_ceil(BUSY_READY_DIVISOR)
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
                && self.state.starting() < MAX_CONCURRENT_STARTS
                && self.start(&kind, false)
            {}
        }
    }

    /// Returns the number of unused containers of a kind that should be ready. Those for new
    /// tenants are a small part of the kind's containers, so that a pool that is just large enough
    /// for its tenants is left to them.
    fn target(&self, kind: &ContainerKind, entry: &KindEntry) -> usize {
        let state = &*self.state;
        let target = entry.target(&state.rules, self.now);
        if entry.serves_once(&state.rules) || target <= entry.warm {
            return target;
        }
        let is_bound = |owner: &Owner| owner.tenant.is_some() && owner.kind == *kind;
        let idle = state.idle.iter().filter(|idle| is_bound(&idle.owner));
        let busy = (state.checkouts.values()).filter(|checkout| is_bound(&checkout.owner));
        let bound = idle.count() + busy.count();
        target.min(bound / BOUND_PER_UNUSED).max(entry.warm)
    }

    /// Returns the number of unused containers of a kind, including those being started, minus the
    /// number of waiters for that kind whose resources are reserved.
    fn ready(&self, kind: &ContainerKind) -> usize {
        let state = &*self.state;
        let idle = state
            .idle
            .iter()
            .filter(|idle| idle.owner.tenant.is_none() && idle.owner.kind == *kind)
            .count();
        let starting = state.kinds.get(kind).map_or(0, |entry| entry.starting);
        let waiting = state
            .waiters
            .iter()
            .filter(|waiter| waiter.lacks_container() && waiter.owner.kind == *kind)
            .count();
        (idle + starting).saturating_sub(waiting)
    }

    /// Returns whether the room of a kind is too small for one more container.
    fn lacks_room_for_one(&self, kind: &ContainerKind) -> bool {
        let entry = self.state.kinds.get(kind);
        entry.is_some_and(|entry| self.state.room_shortage(kind, entry.memory).is_some())
    }

    /// Starts a container if the budget and the room of the kind have memory for it. A `wanted`
    /// container is also started if no other container exists there, because then nothing could
    /// make room.
    fn start(&mut self, kind: &ContainerKind, wanted: bool) -> bool {
        let is_full = self.lacks_room_for_one(kind);
        let is_first = is_full && self.state.has_no_sandbox(kind);
        let state = &mut *self.state;
        let only_one = state.budget.taken().containers == 0;
        let Some(entry) = state.kinds.get_mut(kind) else {
            return false;
        };
        let has_place = state.budget.fits_container(entry.memory) || (wanted && only_one);
        if !has_place || (is_full && !(wanted && is_first)) {
            return false;
        }
        entry.starting += 1;
        state.budget.add(entry.memory);
        self.actions.push(Action::Start {
            kind: kind.clone(),
            image: entry.image.clone(),
            memory: entry.memory,
        });
        true
    }

    /// Returns whether a checkout that satisfies `of` is expected to end sooner than a container of
    /// this kind could be started.
    fn return_expected(&self, kind: &ContainerKind, of: impl Fn(&Checkout) -> bool) -> bool {
        let state = &*self.state;
        let Some(entry) = state.kinds.get(kind) else {
            return false;
        };
        let remaining = |checkout: &Checkout| {
            let stats = state.owner_stats.get(&checkout.owner)?;
            stats.remaining(checkout.since, self.now)
        };
        state
            .checkouts
            .values()
            .filter(|checkout| of(checkout))
            .filter_map(remaining)
            .any(|remaining| remaining < entry.start())
    }

    /// Destroys the idle container with the lowest retention score among those of some owners.
    /// Returns whether there was one.
    fn evict(&mut self, of: impl Fn(&Owner) -> bool) -> bool {
        let mut ranks: HashMap<&Owner, usize> = HashMap::new();
        let mut lowest: Option<(f64, usize)> = None;
        // The newest gets the first rank, so that of several equal containers the oldest has the
        // lowest score.
        for (at, idle) in self.state.idle.iter().enumerate().rev() {
            let rank = ranks.entry(&idle.owner).or_default();
            *rank += 1;
            let entry = self.state.kinds.get(&idle.owner.kind);
            let uses = self.uses(&idle.owner);
            let start = entry.map_or_else(Default::default, KindEntry::start);
            let score = retention_score(uses, *rank, start, idle.memory);
            if of(&idle.owner) && lowest.is_none_or(|(lowest, _)| score <= lowest) {
                lowest = Some((score, at));
            }
        }
        let Some((_, at)) = lowest else { return false };
        let idle = self.state.idle.remove(at);
        self.state.counts.evicted += 1;
        self.state.last_eviction = Some(self.now);
        self.actions.push(self.state.begin_removal(idle));
        true
    }

    /// Returns the recent uses of an owner's containers. For an unused container these are the uses
    /// of all owners of its kind, because it may serve any of them.
    fn uses(&self, owner: &Owner) -> f64 {
        let owner_stats = &self.state.owner_stats;
        match owner.tenant {
            Some(_) => owner_stats
                .get(owner)
                .map_or(0.0, |stats| stats.uses(self.now)),
            None => owner_stats
                .iter()
                .filter(|(other, _)| other.kind == owner.kind)
                .map(|(_, stats): (_, &CheckoutStats)| stats.uses(self.now))
                .sum(),
        }
    }
}
