//! The pool itself: performs the actions that its planner chooses, and answers waiting attempts.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use sandhog_config::WarmCount;
use sandhog_core::units::ByteCount;
use tokio::sync::watch;

use super::counts::PoolCounts;
use super::memory_hold::{HoldRelease, MemoryHold};
use super::planner::Planner;
use super::pooled_sandbox::{PooledSandbox, SandboxReturn};
use super::request::{ContainerKind, SandboxRequest};
use super::rules::Rules;
use super::state::{Action, ModelDemand, PoolState, Poolable, ReturnedSandbox, StartedSandbox};
use crate::gpu::Grant;
use crate::sandbox::{Image, Sandbox, SandboxError, Sandboxes, Shape};
use crate::waiters::Waiters;

/// Interval between resolutions of the images to keep warm, because an image may have been rebuilt.
const WARM_CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// Pool of ready sandboxes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pool {
    shared: Arc<SharedPool>,
}

/// The parts of a pool that its handles share.
#[derive(Debug)]
pub(super) struct SharedPool {
    sandboxes: Sandboxes,
    internals: Mutex<PoolInternals>,
    /// `true` while a waiter lacks memory that idle containers cannot give.
    wants_memory: watch::Sender<bool>,
}

/// The state of a pool that its lock protects, and the waiting attempts.
#[derive(Debug)]
struct PoolInternals {
    state: PoolState<Sandbox>,
    waiters: Waiters<Result<PooledSandbox, SandboxError>>,
    hold_waiters: Waiters<MemoryHold>,
    last_warm_check: Option<Instant>,
    /// `true` if a timer is set that settles the pool again in the next idle gap.
    gap_timer_set: bool,
}

impl Poolable for Sandbox {
    fn is_usable(&mut self) -> bool {
        Self::is_usable(self)
    }
}

impl Pool {
    /// Creates an empty pool with these rules, which starts `sandboxes`.
    #[must_use]
    pub fn new(sandboxes: Sandboxes, rules: Rules) -> Self {
        Self {
            shared: Arc::new(SharedPool {
                sandboxes,
                internals: Mutex::new(PoolInternals {
                    state: PoolState::new(rules),
                    waiters: Waiters::default(),
                    hold_waiters: Waiters::default(),
                    last_warm_check: None,
                    gap_timer_set: false,
                }),
                wants_memory: watch::Sender::new(false),
            }),
        }
    }

    /// Returns a ready sandbox that fits the request: an idle one, or a new one. Waits while the
    /// budget has no room for it.
    ///
    /// # Errors
    /// If the pool started a container for this attempt and the start failed.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind except possibly an idle container.
    pub async fn take(&self, request: &SandboxRequest) -> Result<PooledSandbox, SandboxError> {
        let (waiting, actions) = {
            let mut internals = self.shared.lock();
            let (number, actions) = internals.state.add_waiter(request, Instant::now());
            let leave = move || self.shared.remove_waiter(number);
            (internals.waiters.add(number, leave), actions)
        };
        self.shared.perform(actions);
        self.shared.settle();
        waiting.answer().await
    }

    /// Holds memory of the budget for a model server of this image. Waits until there is enough, in
    /// turn with the jobs if one of them waits for the server.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn hold_memory(
        &self,
        image: &Image,
        shape: &Shape,
        memory: ByteCount,
        demand: ModelDemand,
    ) -> MemoryHold {
        let kind = ContainerKind::new(image, shape);
        let waiting = {
            let mut internals = self.shared.lock();
            let (state, now) = (&mut internals.state, Instant::now());
            let number = state.add_memory_waiter(&kind, image, memory.0, demand, now);
            let leave = move || self.shared.remove_waiter(number);
            internals.hold_waiters.add(number, leave)
        };
        self.shared.settle();
        waiting.answer().await
    }

    /// Takes a sandbox back. It may serve again only if its last report was `clean` and it holds
    /// about as many bytes (`memory_after`) as before; otherwise it is destroyed in the background.
    /// Its GPUs become free when it is idle again or destroyed.
    pub fn give_back(&self, sandbox: PooledSandbox, clean: bool, memory_after: Option<u64>) {
        let (checkout_id, sandbox, gpus) = sandbox.into_parts();
        let returned = ReturnedSandbox {
            checkout_id,
            sandbox,
            clean,
            memory_after,
        };
        self.shared.on_return(returned, gpus);
    }

    /// Destroys containers that have been idle for too long, in the background. Returns their
    /// number. The caller runs this about every second; the call also retries decisions that were
    /// postponed.
    pub fn sweep(&self) -> usize {
        let actions = Planner::new(&mut self.shared.lock().state, Instant::now()).sweep();
        let removed = actions.len();
        self.shared.perform(actions);
        self.shared.settle();
        removed
    }

    /// Destroys idle containers that have one of these failed GPUs, in the background. Returns
    /// their number. The caller repeats this about every second while a failed GPU remains, because
    /// a container that is starting or busy becomes idle only later.
    pub fn withdraw(&self, failed: &[String]) -> usize {
        let actions = self.shared.lock().state.withdraw(failed, Instant::now());
        let removed = actions.len();
        self.shared.perform(actions);
        removed
    }

    /// Keeps the configured number of unused containers of these images ready. The caller repeats
    /// this regularly, so that a rebuilt or newly built image is noticed.
    ///
    /// # Cancel safety
    /// Cancel safe: images that were not resolved yet are left to the next call.
    pub async fn keep_warm(&self, images: &[WarmCount]) {
        {
            let mut internals = self.shared.lock();
            let now = Instant::now();
            let soon = |at: Instant| now.saturating_duration_since(at) < WARM_CHECK_INTERVAL;
            if images.is_empty() || internals.last_warm_check.is_some_and(soon) {
                return;
            }
            internals.last_warm_check = Some(now);
        }
        for warm in images {
            let image = match self.shared.sandboxes.resolve(&warm.image).await {
                Ok(image) => image,
                Err(error) => {
                    tracing::warn!(
                        image = %warm.image,
                        error = &error as &dyn std::error::Error,
                        "image not kept warm"
                    );
                    continue;
                }
            };
            let shape = self.shared.sandboxes.shape(&image);
            let kind = ContainerKind::new(&image, &shape);
            let actions = {
                let mut internals = self.shared.lock();
                let actions = internals.state.evict_old_builds(&image);
                internals
                    .state
                    .kind_entry(&kind, &image, Instant::now())
                    .warm = usize::try_from(warm.count).unwrap_or(usize::MAX);
                actions
            };
            self.shared.perform(actions);
        }
        self.shared.settle();
    }

    /// Destroys every idle sandbox and keeps none from now on: sandboxes in use are destroyed
    /// when they are given back. Waits until all starts and removals under way have ended.
    ///
    /// # Cancel safety
    /// Cancel safe: starts and removals under way end in the background.
    pub async fn close(&self) {
        self.shared.lock().state.open = false;
        self.shared.destroy_idle();
        self.shared.settle();
        self.shared.sandboxes.close().await;
    }

    /// Returns counters of past events and the current contents of the pool.
    #[must_use]
    pub fn counts(&self) -> PoolCounts {
        let internals = self.shared.lock();
        let state = &internals.state;
        let (total, taken) = (state.budget.total(), state.budget.taken());
        PoolCounts {
            idle: state.idle.len(),
            busy: state.checkouts.len(),
            starting: state.starting(),
            leaving: state.leaving,
            waiting: state.waiters.len(),
            containers_max: total.containers,
            memory: taken.memory,
            memory_max: total.memory,
            cpu_millis: taken.cpu_millis,
            cpu_millis_max: total.cpu_millis,
            machine: self.shared.sandboxes.facts().shared_machine(),
            ..state.counts
        }
    }
}

impl SharedPool {
    fn lock(&self) -> MutexGuard<'_, PoolInternals> {
        self.internals
            .lock()
            .expect("no code panics while it holds this lock")
    }

    /// Performs every action that is possible now.
    fn settle(self: &Arc<Self>) {
        let now = Instant::now();
        let (actions, gap) = {
            let mut internals = self.lock();
            let actions = Planner::new(&mut internals.state, now).settle();
            let wants_memory = internals.state.wants_memory;
            self.wants_memory.send_if_modified(|wanted| {
                let is_new = *wanted != wants_memory;
                *wanted = wants_memory;
                is_new
            });
            let gap = Planner::new(&mut internals.state, now).next_idle_gap();
            let gap = gap.filter(|_at| !internals.gap_timer_set);
            internals.gap_timer_set |= gap.is_some();
            (actions, gap)
        };
        self.perform(actions);
        if let Some(gap) = gap {
            self.settle_at(gap);
        }
    }

    /// Settles again at this time, if the pool still exists. Without a runtime the process is
    /// ending, and nothing is scheduled.
    fn settle_at(self: &Arc<Self>, at: Instant) {
        let shared = Arc::downgrade(self);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                tokio::time::sleep_until(at.into()).await;
                if let Some(shared) = shared.upgrade() {
                    shared.lock().gap_timer_set = false;
                    shared.settle();
                }
            });
        }
    }

    fn perform(self: &Arc<Self>, actions: Vec<Action<Sandbox>>) {
        for action in actions {
            match action {
                Action::CheckOut {
                    waiter,
                    checkout_id,
                    sandbox,
                    expects_reuse,
                } => self.check_out(waiter, checkout_id, sandbox, expects_reuse),
                Action::Hold { waiter } => {
                    let pool: Arc<dyn HoldRelease> = Arc::<Self>::clone(self);
                    let hold = MemoryHold::new(waiter, pool, self.wants_memory.subscribe());
                    // A hold whose waiter has gone is released when it is dropped.
                    let unused = self.lock().hold_waiters.answer(waiter, hold);
                    drop(unused);
                }
                Action::Start {
                    kind,
                    image,
                    memory,
                } => {
                    let shared = Arc::clone(self);
                    self.sandboxes.spawn_background(async move {
                        let began = Instant::now();
                        let started = shared.sandboxes.start_shaped(&image, &kind.shape).await;
                        shared.on_start_result(&kind, memory, started, began.elapsed());
                    });
                }
                Action::Destroy {
                    kind,
                    sandbox,
                    memory,
                } => self.destroy(kind, sandbox, memory, None),
            }
        }
    }

    /// Destroys a container in the background; its GPUs become free when it is removed.
    fn destroy(
        self: &Arc<Self>,
        kind: ContainerKind,
        sandbox: Sandbox,
        memory: u64,
        gpus: Option<Grant>,
    ) {
        let shared = Arc::clone(self);
        self.sandboxes.spawn_background(async move {
            sandbox.destroy().await;
            drop(gpus);
            shared.lock().state.removed(&kind, memory);
            shared.settle();
        });
    }

    /// Passes a container to its waiter, or keeps it if the waiter has gone.
    fn check_out(
        self: &Arc<Self>,
        waiter: u64,
        checkout_id: u64,
        sandbox: Sandbox,
        expects_reuse: bool,
    ) {
        let pool = Arc::clone(self) as Arc<dyn SandboxReturn>;
        let sandbox = PooledSandbox::new(checkout_id, sandbox, expects_reuse, pool);
        let unused = self.lock().waiters.answer(waiter, Ok(sandbox));
        if let Some(Ok(sandbox)) = unused {
            let (checkout_id, sandbox, _gpus) = sandbox.into_parts();
            let mut internals = self.lock();
            internals
                .state
                .return_unused(checkout_id, sandbox, Instant::now());
            drop(internals);
            self.settle();
        }
    }

    /// Records the result of a start.
    fn on_start_result(
        self: &Arc<Self>,
        kind: &ContainerKind,
        assumed_memory: u64,
        started: Result<Sandbox, SandboxError>,
        took: Duration,
    ) {
        let now = Instant::now();
        let open = match started {
            Ok(sandbox) => {
                let mut internals = self.lock();
                let measured_memory = sandbox.features().memory_bytes;
                let share = internals.state.rules.share;
                let room = sandbox.room().map(|room| room.0 / share.max(1));
                internals.state.start_succeeded(
                    StartedSandbox {
                        kind,
                        sandbox,
                        assumed_memory,
                        measured_memory,
                        room,
                        took,
                    },
                    now,
                );
                internals.state.open
            }
            Err(error) => {
                let mut internals = self.lock();
                let jitter = rand::random();
                let waiter = internals
                    .state
                    .start_failed(kind, assumed_memory, jitter, now);
                let unsent = match waiter {
                    Some(number) => internals.waiters.answer(number, Err(error)),
                    None => Some(Err(error)),
                };
                let open = internals.state.open;
                drop(internals);
                if let Some(Err(error)) = unsent {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "container not started in advance"
                    );
                }
                open
            }
        };
        self.settle();
        if !open {
            self.destroy_idle();
        }
    }

    /// Records the return of a container, and releases its GPUs when it is idle or destroyed.
    fn on_return(self: &Arc<Self>, returned: ReturnedSandbox<Sandbox>, gpus: Option<Grant>) {
        let action = self.lock().state.returned(returned, Instant::now());
        match action {
            Some(Action::Destroy {
                kind,
                sandbox,
                memory,
            }) => self.destroy(kind, sandbox, memory, gpus),
            other => {
                drop(gpus);
                self.perform(other.into_iter().collect());
            }
        }
        self.settle();
    }

    /// Removes a waiting attempt or model server, if it is still there.
    fn remove_waiter(self: &Arc<Self>, number: u64) {
        let mut internals = self.lock();
        internals.waiters.remove(number);
        internals.hold_waiters.remove(number);
        if internals.state.remove_waiter(number).is_some() {
            drop(internals);
            self.settle();
        }
    }

    /// Destroys every idle container.
    fn destroy_idle(self: &Arc<Self>) {
        let actions = {
            let mut internals = self.lock();
            let idle = internals.state.remove_idle_where(|_| true);
            idle.into_iter()
                .map(|idle| internals.state.begin_removal(idle))
                .collect()
        };
        self.perform(actions);
    }
}

impl HoldRelease for SharedPool {
    fn release(self: Arc<Self>, number: u64) {
        self.lock().state.release_hold(number);
        self.settle();
    }
}

impl SandboxReturn for SharedPool {
    fn on_drop(self: Arc<Self>, checkout_id: u64, sandbox: Sandbox, gpus: Option<Grant>) {
        let returned = ReturnedSandbox {
            checkout_id,
            sandbox,
            clean: false,
            memory_after: None,
        };
        self.on_return(returned, gpus);
    }
}
