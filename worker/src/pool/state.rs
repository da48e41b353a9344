//! The pool's state: idle containers, checkouts, waiters, and usage records of its kinds.
//!
//! Events change the state here; the [planner](super::planner) chooses the next actions. The state
//! performs no I/O: it starts no container and does not wait, and the caller passes the current
//! time. So its tests need neither an engine nor a clock.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use sandhog_config::Reuse;
use sandhog_core::size::Size;
use sandhog_core::units::ByteCount;

use super::budget::PoolBudget;
use super::checkout_stats::{CheckoutStats, average};
use super::counts::PoolCounts;
use super::request::{ContainerKind, Need, Owner, SandboxRequest};
use super::rules::Rules;
use crate::sandbox::Image;

/// Memory assumed for a container until one of its kind was measured.
pub(crate) const UNMEASURED_MEMORY: ByteCount = ByteCount::mib(32);

/// A container whose memory has grown by more than its cap divided by this number since before its
/// first job does not serve again.
pub(super) const GROWTH_DIVISOR: u64 = 8;

/// Start time assumed for a container until one of its kind was measured.
const UNMEASURED_START: Duration = Duration::from_millis(350);

/// Delay after the first failed start. It doubles with each further failure in a row.
const FIRST_START_DELAY: Duration = Duration::from_millis(500);

/// Maximum delay after a failed start.
const MAX_START_DELAY: Duration = Duration::from_secs(60);

/// Time within which two jobs of new tenants count as close.
const NEW_TENANTS_WINDOW: Duration = Duration::from_secs(1);

/// Number of unclean returns in a row after which the containers of a kind serve one job each.
const MAX_UNCLEAN_RETURNS: u32 = 2;

/// The part of a container's interface that the pool needs.
pub(super) trait Poolable {
    /// Returns whether the container can run another job.
    fn is_usable(&mut self) -> bool;
}

/// The complete state of the pool.
#[derive(Debug)]
pub(super) struct PoolState<S> {
    pub(super) rules: Rules,
    pub(super) open: bool,
    pub(super) budget: PoolBudget,
    /// Idle containers, in the order in which they became idle.
    pub(super) idle: Vec<IdleSandbox<S>>,
    /// Containers that attempts use now, by the id of their checkout.
    pub(super) checkouts: HashMap<u64, Checkout>,
    pub(super) waiters: VecDeque<SandboxWaiter>,
    /// Memory that is held for model servers, by the number of the waiter that asked for it.
    pub(super) holds: HashMap<u64, (ContainerKind, Need)>,
    /// Time of the last destruction of an idle container to make room.
    pub(super) last_eviction: Option<Instant>,
    /// `true` if a waiter lacks memory that idle containers cannot give.
    pub(super) wants_memory: bool,
    pub(super) kinds: HashMap<ContainerKind, KindEntry>,
    pub(super) owner_stats: HashMap<Owner, CheckoutStats>,
    /// Containers that have served their only job, with the memory they hold. They are destroyed
    /// when that disturbs no job, and they count as leaving.
    pub(super) retired: VecDeque<RetiredSandbox<S>>,
    /// Number of containers being destroyed; `leaving_memory` is the memory they hold.
    pub(super) leaving: usize,
    pub(super) leaving_memory: u64,
    pub(super) counts: PoolCounts,
    next: u64,
}

/// A container that is not in use.
#[derive(Debug)]
pub(super) struct IdleSandbox<S> {
    pub(super) sandbox: S,
    pub(super) owner: Owner,
    pub(super) since: Instant,
    /// The memory that it was last measured to hold.
    pub(super) memory: u64,
    /// The memory that it held before its first job.
    pub(super) fresh_memory: u64,
}

/// A container that will not serve again and whose removal is not urgent.
#[derive(Debug)]
pub(super) struct RetiredSandbox<S> {
    pub(super) sandbox: S,
    pub(super) kind: ContainerKind,
    pub(super) memory: u64,
}

/// A container that an attempt uses.
#[derive(Debug)]
pub(super) struct Checkout {
    pub(super) owner: Owner,
    pub(super) since: Instant,
    pub(super) need: Need,
    /// The memory that the container was last measured to hold.
    pub(super) memory: u64,
    /// The memory that the container held before its first job.
    pub(super) fresh_memory: u64,
}

/// An attempt that waits for a container.
#[derive(Debug)]
pub(super) struct SandboxWaiter {
    pub(super) number: u64,
    pub(super) owner: Owner,
    pub(super) need: Need,
    /// `true` if its resources are reserved; it then only lacks a container.
    pub(super) has_reservation: bool,
    /// Set if it waits for memory and for no container: it is a model server.
    pub(super) model: Option<ModelDemand>,
}

/// Demand for a model server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelDemand {
    /// A job waits for it.
    Job,
    /// It should stay loaded, and no job waits for it. It gets memory that no waiter lacks.
    Warm,
}

impl SandboxWaiter {
    /// Returns whether its resources are reserved and it needs a container.
    pub(super) fn lacks_container(&self) -> bool {
        self.has_reservation && self.model.is_none()
    }
}

/// Facts about the containers of one kind.
#[derive(Debug)]
pub(super) struct KindEntry {
    pub(super) image: Image,
    /// Memory that one holds when it is ready, in bytes.
    pub(super) memory: u64,
    /// Average time that a start takes.
    start: Option<Duration>,
    /// Number of starts under way.
    pub(super) starting: usize,
    /// Memory that the containers of this kind and their jobs may hold together, if one keeper
    /// makes them all.
    pub(super) room: Option<u64>,
    /// Memory of the containers of this kind that are being destroyed.
    pub(super) leaving_memory: u64,
    /// Number of unused containers to keep ready because of a setting.
    pub(super) warm: usize,
    pub(super) last_requested: Instant,
    /// Times of the last two checkouts of an unused container, the older one first.
    fresh_checkouts: [Option<Instant>; 2],
    failures: u32,
    /// Earliest time of the next start in advance.
    pub(super) not_before: Instant,
    unclean: u32,
}

/// An action for the pool to perform.
#[derive(Debug)]
pub(super) enum Action<S> {
    /// Give a container to a waiter.
    CheckOut {
        waiter: u64,
        checkout_id: u64,
        sandbox: S,
        /// `true` if another attempt is expected to use it later.
        expects_reuse: bool,
    },
    /// Tell a waiter that its memory is held.
    Hold { waiter: u64 },
    /// Start a container, which is assumed to hold `memory`.
    Start {
        kind: ContainerKind,
        image: Image,
        memory: u64,
    },
    /// Destroy a container that holds `memory`.
    Destroy {
        kind: ContainerKind,
        sandbox: S,
        memory: u64,
    },
}

impl KindEntry {
    fn new(image: &Image, now: Instant) -> Self {
        Self {
            image: image.clone(),
            memory: UNMEASURED_MEMORY.0,
            start: None,
            starting: 0,
            room: None,
            leaving_memory: 0,
            warm: 0,
            last_requested: now,
            fresh_checkouts: [None; 2],
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
        rules.reuse == Reuse::Never || self.unclean >= MAX_UNCLEAN_RETURNS
    }

    /// Records the checkout of an unused container.
    pub(super) fn note_fresh_checkout(&mut self, now: Instant) {
        self.fresh_checkouts = [self.fresh_checkouts[1], Some(now)];
    }

    /// Returns whether jobs of new tenants follow one another closely, so that the next one too
    /// will need an unused container.
    pub(super) fn has_many_tenants(&self, now: Instant) -> bool {
        let older = self.fresh_checkouts[0];
        older.is_some_and(|at| now.saturating_duration_since(at) < NEW_TENANTS_WINDOW)
    }

    /// Returns the number of unused containers that should be ready.
    pub(super) fn target(&self, rules: &Rules, now: Instant) -> usize {
        let recent = now.saturating_duration_since(self.last_requested) < rules.idle_for;
        if self.serves_once(rules) && recent {
            self.warm.max(rules.ahead)
        } else if self.room.is_some() && self.has_many_tenants(now) {
            self.warm.max(rules.ahead_for_tenants)
        } else {
            self.warm
        }
    }
}

impl<S: Poolable> PoolState<S> {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            budget: PoolBudget::new(rules.total()),
            rules,
            open: true,
            idle: Vec::new(),
            checkouts: HashMap::new(),
            waiters: VecDeque::new(),
            holds: HashMap::new(),
            last_eviction: None,
            wants_memory: false,
            kinds: HashMap::new(),
            owner_stats: HashMap::new(),
            retired: VecDeque::new(),
            leaving: 0,
            leaving_memory: 0,
            counts: PoolCounts::default(),
            next: 0,
        }
    }

    /// Returns the next free number, for a waiter or a checkout.
    pub(super) fn next_number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Returns the number of starts under way.
    pub(super) fn starting(&self) -> usize {
        self.kinds.values().map(|entry| entry.starting).sum()
    }

    /// Returns the group of containers that may serve a tenant's job.
    fn owner(&self, request: &SandboxRequest) -> Owner {
        let kind = request.kind();
        let tenant = match self.rules.reuse {
            Reuse::Tenant => Some((request.namespace.clone(), request.tenant.clone())),
            Reuse::Never | Reuse::Any => None,
        };
        Owner { kind, tenant }
    }

    /// Adds a waiter. Also destroys idle containers of older builds of its image, which are not
    /// needed any more.
    pub(super) fn add_waiter(
        &mut self,
        request: &SandboxRequest,
        now: Instant,
    ) -> (u64, Vec<Action<S>>) {
        let actions = self.evict_old_builds(&request.image);
        let kind = request.kind();
        let entry = self.kind_entry(&kind, &request.image, now);
        entry.last_requested = now;
        let need = {
            let memory = entry.memory;
            self.budget.clamp(request.need(), memory)
        };
        let owner = self.owner(request);
        let stats = self.owner_stats.entry(owner.clone());
        stats
            .or_insert_with(|| CheckoutStats::new(now))
            .record_use(now);
        let number = self.next_number();
        self.waiters.push_back(SandboxWaiter {
            number,
            owner,
            need,
            has_reservation: false,
            model: None,
        });
        (number, actions)
    }

    /// Adds a waiter for the memory of a model server. It never gets the memory of the last job of
    /// the default size, so that some jobs run beside the largest model.
    pub(super) fn add_memory_waiter(
        &mut self,
        kind: &ContainerKind,
        image: &Image,
        memory: u64,
        demand: ModelDemand,
        now: Instant,
    ) -> u64 {
        self.kind_entry(kind, image, now);
        let total = self.budget.total().memory;
        let kept = Size::DEFAULT.resources().memory_mib << 20;
        let need = Need {
            memory: memory.min(total - kept.min(total / 2)),
            cpu_millis: 0,
        };
        let number = self.next_number();
        self.waiters.push_back(SandboxWaiter {
            number,
            owner: Owner {
                kind: kind.clone(),
                tenant: None,
            },
            need,
            has_reservation: false,
            model: Some(demand),
        });
        number
    }

    /// Releases the memory of a model server.
    pub(super) fn release_hold(&mut self, number: u64) {
        if let Some((_, need)) = self.holds.remove(&number) {
            self.budget.release(need);
        }
    }

    pub(super) fn kind_entry(
        &mut self,
        kind: &ContainerKind,
        image: &Image,
        now: Instant,
    ) -> &mut KindEntry {
        self.kinds
            .entry(kind.clone())
            .or_insert_with(|| KindEntry::new(image, now))
    }

    /// Destroys idle containers of other builds of this image.
    pub(super) fn evict_old_builds(&mut self, image: &Image) -> Vec<Action<S>> {
        let old: Vec<ContainerKind> = self
            .kinds
            .iter()
            .filter(|(kind, entry)| entry.image.name == image.name && kind.digest != image.digest)
            .map(|(kind, _)| kind.clone())
            .collect();
        if old.is_empty() {
            return Vec::new();
        }
        for kind in &old {
            if let Some(entry) = self.kinds.get_mut(kind) {
                entry.warm = 0;
                entry.unclean = 0;
            }
        }
        let gone = self.remove_idle_where(|idle| old.contains(&idle.owner.kind));
        self.counts.evicted += gone.len() as u64;
        gone.into_iter()
            .map(|idle| self.begin_removal(idle))
            .collect()
    }

    /// Destroys idle containers with one of these GPUs, and suspends starts in advance of their
    /// kinds.
    pub(super) fn withdraw(&mut self, failed: &[String], now: Instant) -> Vec<Action<S>> {
        let has = |kind: &ContainerKind| kind.shape.gpus.iter().any(|gpu| failed.contains(gpu));
        for (_, entry) in self.kinds.iter_mut().filter(|(kind, _)| has(kind)) {
            entry.not_before = now + self.rules.idle_for;
        }
        let gone = self.remove_idle_where(|idle| has(&idle.owner.kind));
        self.counts.spoiled += gone.len() as u64;
        gone.into_iter()
            .map(|idle| self.begin_removal(idle))
            .collect()
    }

    /// Removes and returns the idle containers that satisfy the predicate.
    pub(super) fn remove_idle_where(
        &mut self,
        mut predicate: impl FnMut(&mut IdleSandbox<S>) -> bool,
    ) -> Vec<IdleSandbox<S>> {
        let mut taken = Vec::new();
        let mut at = 0;
        while at < self.idle.len() {
            if predicate(&mut self.idle[at]) {
                taken.push(self.idle.remove(at));
            } else {
                at += 1;
            }
        }
        taken
    }

    /// Removes the waiter with this number, and releases its reservation.
    pub(super) fn remove_waiter(&mut self, number: u64) -> Option<SandboxWaiter> {
        let at = self
            .waiters
            .iter()
            .position(|waiter| waiter.number == number)?;
        let waiter = self.waiters.remove(at)?;
        if waiter.has_reservation {
            self.budget.release(waiter.need);
        }
        Some(waiter)
    }

    /// Adds a newly started container. Its memory is the measured value, if known.
    pub(super) fn start_succeeded(&mut self, start: StartedSandbox<'_, S>, now: Instant) {
        let StartedSandbox {
            kind,
            sandbox,
            assumed_memory,
            measured_memory,
            room,
            took,
        } = start;
        let memory = measured_memory.unwrap_or(assumed_memory).max(1);
        self.budget.correct(assumed_memory, memory);
        self.counts.started += 1;
        if let Some(entry) = self.kinds.get_mut(kind) {
            entry.starting -= 1;
            entry.memory = memory;
            entry.room = room;
            entry.start = Some(average(entry.start, took));
            entry.failures = 0;
        }
        let owner = Owner {
            kind: kind.clone(),
            tenant: None,
        };
        self.idle.push(IdleSandbox {
            sandbox,
            owner,
            since: now,
            memory,
            fresh_memory: memory,
        });
    }

    /// Records a failed start, and removes the waiter of this kind that has a reservation and has
    /// waited longest; its number is returned so that it gets the error. `jitter` is in 0..1.
    pub(super) fn start_failed(
        &mut self,
        kind: &ContainerKind,
        assumed_memory: u64,
        jitter: f64,
        now: Instant,
    ) -> Option<u64> {
        self.budget.remove(assumed_memory);
        self.counts.failed += 1;
        if let Some(entry) = self.kinds.get_mut(kind) {
            entry.starting -= 1;
            let pause = FIRST_START_DELAY.saturating_mul(1 << entry.failures.min(16));
            entry.failures += 1;
            entry.not_before = now + pause.min(MAX_START_DELAY).mul_f64(0.5 + jitter / 2.0);
        }
        let number = self
            .waiters
            .iter()
            .find(|waiter| waiter.lacks_container() && waiter.owner.kind == *kind)?
            .number;
        self.remove_waiter(number).map(|waiter| waiter.number)
    }

    /// Records that a container of this kind is removed.
    pub(super) fn removed(&mut self, kind: &ContainerKind, memory: u64) {
        self.budget.remove(memory);
        if let Some(entry) = self.kinds.get_mut(kind) {
            entry.leaving_memory = entry.leaving_memory.saturating_sub(memory);
        }
        self.leaving -= 1;
        self.leaving_memory -= memory;
    }

    /// Records the end of a checkout. The memory that the container holds now, if known, shows
    /// whether the job leaked memory in it.
    pub(super) fn returned(&mut self, back: ReturnedSandbox<S>, now: Instant) -> Option<Action<S>> {
        let ReturnedSandbox {
            checkout_id,
            mut sandbox,
            clean,
            memory_after,
        } = back;
        let checkout = self.checkouts.remove(&checkout_id)?;
        self.budget.release(checkout.need);
        if let Some(stats) = self.owner_stats.get_mut(&checkout.owner) {
            stats.record_return(now.saturating_duration_since(checkout.since));
        }
        let cap = checkout.owner.kind.shape.memory.0;
        let grown =
            memory_after.is_some_and(|after| after > checkout.fresh_memory + cap / GROWTH_DIVISOR);
        let good = clean && !grown && sandbox.is_usable();
        if let Some(entry) = self.kinds.get_mut(&checkout.owner.kind) {
            entry.unclean = if good { 0 } else { entry.unclean + 1 };
        }
        if good && self.open && self.keeps() {
            let memory = memory_after.unwrap_or(checkout.memory).max(1);
            self.budget.correct(checkout.memory, memory);
            self.idle.push(IdleSandbox {
                sandbox,
                owner: checkout.owner,
                since: now,
                memory,
                fresh_memory: checkout.fresh_memory,
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
        self.count_leaving(&checkout.owner.kind, checkout.memory);
        // An attempt that waits for a GPU waits until the container that had it is removed.
        if good && self.open && checkout.owner.kind.shape.gpus.is_empty() {
            self.retired.push_back(RetiredSandbox {
                sandbox,
                kind: checkout.owner.kind,
                memory: checkout.memory,
            });
            return None;
        }
        Some(Action::Destroy {
            kind: checkout.owner.kind,
            sandbox,
            memory: checkout.memory,
        })
    }

    /// Takes back a container whose waiter has gone. The container is unused.
    pub(super) fn return_unused(&mut self, checkout_id: u64, sandbox: S, now: Instant) {
        if let Some(checkout) = self.checkouts.remove(&checkout_id) {
            self.budget.release(checkout.need);
            self.idle.push(IdleSandbox {
                sandbox,
                owner: checkout.owner,
                since: now,
                memory: checkout.memory,
                fresh_memory: checkout.fresh_memory,
            });
        }
    }

    fn keeps(&self) -> bool {
        self.rules.reuse != Reuse::Never && !self.rules.idle_for.is_zero()
    }

    pub(super) fn begin_removal(&mut self, idle: IdleSandbox<S>) -> Action<S> {
        self.count_leaving(&idle.owner.kind, idle.memory);
        Action::Destroy {
            kind: idle.owner.kind,
            sandbox: idle.sandbox,
            memory: idle.memory,
        }
    }

    fn count_leaving(&mut self, kind: &ContainerKind, memory: u64) {
        self.leaving += 1;
        self.leaving_memory += memory;
        if let Some(entry) = self.kinds.get_mut(kind) {
            entry.leaving_memory += memory;
        }
    }
}

/// A container that was started successfully.
#[derive(Debug)]
pub(super) struct StartedSandbox<'a, S> {
    pub(super) kind: &'a ContainerKind,
    pub(super) sandbox: S,
    /// The memory it was assumed to hold.
    pub(super) assumed_memory: u64,
    /// The memory it holds, if it was measured.
    pub(super) measured_memory: Option<u64>,
    /// The memory that all containers of its kind and their jobs may hold together, if one keeper
    /// makes them.
    pub(super) room: Option<u64>,
    pub(super) took: Duration,
}

/// A returned container.
#[derive(Debug)]
pub(super) struct ReturnedSandbox<S> {
    pub(super) checkout_id: u64,
    pub(super) sandbox: S,
    pub(super) clean: bool,
    /// The memory that it holds now, if that is known.
    pub(super) memory_after: Option<u64>,
}
