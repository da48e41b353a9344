//! The warm pool: running containers kept ready for the next job, within the machine's resources.
//!
//! A container serves only the image build, the caps and the runtime with which it was started and,
//! unless configured otherwise, only one tenant. The number of containers that exist at once is
//! limited: busy, idle, starting and leaving containers all count. Jobs and idle containers share a
//! budget of memory; jobs share a budget of CPU. Containers are started and destroyed in the
//! background; a job waits for a start only if no container is ready.
//!
//! The pool destroys a container whose job did not end cleanly, that holds much more memory than
//! before the job, or that ended or sent data while it was idle.

mod budget;
mod counts;
mod decide;
mod habit;
mod lent;
mod rules;
mod state;
#[cfg(test)]
mod tests;
mod want;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use sandhog_common::config::Warm;
use tokio::sync::oneshot;

use crate::gpu::Grant;
use crate::sandbox::{Engine, Sandbox, SandboxError};
use state::{Held, Returned, Started, State, Step};
use want::Kind;

pub use counts::PoolCounts;
pub use lent::Lent;
pub use rules::Rules;
pub(crate) use state::UNMEASURED;
pub use want::Want;

/// Interval between resolutions of the images to keep warm, because an image may have been rebuilt.
const LOOK_UP_EVERY: Duration = Duration::from_secs(10);

/// Pool of ready sandboxes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    engine: Engine,
    desk: Mutex<Desk>,
}

/// The pool's state, and the channels of the waiting attempts.
#[derive(Debug)]
struct Desk {
    state: State<Sandbox>,
    answers: HashMap<u64, oneshot::Sender<Result<Lent, SandboxError>>>,
    looked_up: Option<Instant>,
    /// True if a timer is set that settles the pool again after the next lull.
    awaits_lull: bool,
}

impl Held for Sandbox {
    fn is_usable(&mut self) -> bool {
        Self::is_usable(self)
    }
}

impl Pool {
    /// Creates an empty pool with these rules.
    #[must_use]
    pub fn new(engine: Engine, rules: Rules) -> Self {
        Self {
            shared: Arc::new(Shared {
                engine,
                desk: Mutex::new(Desk {
                    state: State::new(rules),
                    answers: HashMap::new(),
                    looked_up: None,
                    awaits_lull: false,
                }),
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
    pub async fn take(&self, want: &Want) -> Result<Lent, SandboxError> {
        let (answer, heard) = oneshot::channel();
        let (number, steps) = {
            let mut desk = self.shared.desk();
            let (number, steps) = desk.state.want(want, Instant::now());
            desk.answers.insert(number, answer);
            (number, steps)
        };
        let _waiting = Waiting {
            number,
            shared: &self.shared,
        };
        self.shared.carry_out(steps);
        self.shared.settle();
        heard
            .await
            .expect("a waiter gets its answer before its sender is dropped")
    }

    /// Takes a sandbox back. It may serve again only if its last report was `clean` and it `holds`
    /// about as many bytes as before; otherwise it is destroyed in the background. Its GPUs become
    /// free when it is idle again or destroyed.
    pub fn give_back(&self, lent: Lent, clean: bool, holds: Option<u64>) {
        let (loan, sandbox, gpus) = lent.into_parts();
        self.shared.take_back(loan, sandbox, clean, holds, gpus);
    }

    /// Destroys containers that have been idle for too long, in the background. Returns their
    /// number. The caller runs this about every second; the call also retries decisions that were
    /// postponed.
    pub fn sweep(&self) -> usize {
        let steps = self.shared.desk().state.sweep(Instant::now());
        let gone = steps.len();
        self.shared.carry_out(steps);
        self.shared.settle();
        gone
    }

    /// Destroys idle containers that have one of these failed GPUs, in the background. Returns
    /// their number. The caller repeats this about every second while a failed GPU remains, because
    /// a container that is starting or busy becomes idle only later.
    pub fn withdraw(&self, failed: &[String]) -> usize {
        let steps = self.shared.desk().state.withdraw(failed, Instant::now());
        let gone = steps.len();
        self.shared.carry_out(steps);
        gone
    }

    /// Keeps the configured number of unused containers of these images ready. The caller repeats
    /// this regularly, so that a rebuilt or newly built image is noticed.
    ///
    /// # Cancel safety
    /// Cancel safe: images that were not resolved yet are left to the next call.
    pub async fn keep_warm(&self, images: &[Warm]) {
        {
            let mut desk = self.shared.desk();
            let now = Instant::now();
            let soon = |at: Instant| now.saturating_duration_since(at) < LOOK_UP_EVERY;
            if images.is_empty() || desk.looked_up.is_some_and(soon) {
                return;
            }
            desk.looked_up = Some(now);
        }
        for warm in images {
            let image = match self.shared.engine.resolve(&warm.image).await {
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
            let shape = self.shared.engine.shape(&image);
            let kind = Kind::new(&image, &shape);
            let steps = {
                let mut desk = self.shared.desk();
                let steps = desk.state.outdate(&image);
                desk.state.know(&kind, &image, Instant::now()).warm =
                    usize::try_from(warm.count).unwrap_or(usize::MAX);
                steps
            };
            self.shared.carry_out(steps);
        }
        self.shared.settle();
    }

    /// Destroys every idle sandbox and keeps none from now on: sandboxes on loan are destroyed when
    /// they are given back. Waits until all starts and removals under way have ended.
    ///
    /// # Cancel safety
    /// Cancel safe: starts and removals under way end in the background.
    pub async fn close(&self) {
        self.shared.desk().state.open = false;
        self.shared.empty();
        self.shared.settle();
        self.shared.engine.settle().await;
    }

    /// Returns counters of past events and the current contents of the pool.
    #[must_use]
    pub fn counts(&self) -> PoolCounts {
        let desk = self.shared.desk();
        let state = &desk.state;
        let (total, taken) = (state.budget.total(), state.budget.taken());
        PoolCounts {
            idle: state.idle.len(),
            busy: state.out.len(),
            starting: state.starting(),
            leaving: state.leaving,
            waiting: state.waiters.len(),
            containers_max: total.containers,
            memory: taken.memory,
            memory_max: total.memory,
            cpu_millis: taken.cpu_millis,
            cpu_millis_max: total.cpu_millis,
            machine: self.shared.engine.facts().shared_machine(),
            ..state.counts
        }
    }
}

impl Shared {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk
            .lock()
            .expect("no code panics while it holds this lock")
    }

    /// Executes every step that is possible now.
    fn settle(self: &Arc<Self>) {
        let now = Instant::now();
        let (steps, lull) = {
            let mut desk = self.desk();
            let steps = desk.state.settle(now);
            let lull = desk.state.lull(now).filter(|_at| !desk.awaits_lull);
            desk.awaits_lull |= lull.is_some();
            (steps, lull)
        };
        self.carry_out(steps);
        if let Some(lull) = lull {
            self.look_again(lull);
        }
    }

    /// Settles again at this time, if the pool still exists. Without a runtime the process is
    /// ending, and nothing is scheduled.
    fn look_again(self: &Arc<Self>, at: Instant) {
        let shared = Arc::downgrade(self);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                tokio::time::sleep_until(at.into()).await;
                if let Some(shared) = shared.upgrade() {
                    shared.desk().awaits_lull = false;
                    shared.settle();
                }
            });
        }
    }

    fn carry_out(self: &Arc<Self>, steps: Vec<Step<Sandbox>>) {
        for step in steps {
            match step {
                Step::Lend {
                    waiter,
                    loan,
                    sandbox,
                } => self.lend(waiter, loan, sandbox),
                Step::Start {
                    kind,
                    image,
                    memory,
                } => {
                    let shared = Arc::clone(self);
                    self.engine.finish_later(async move {
                        let began = Instant::now();
                        let started = shared.engine.start_shaped(&image, &kind.shape).await;
                        shared.heard_of(&kind, memory, started, began.elapsed());
                    });
                }
                Step::Destroy { sandbox, memory } => self.destroy(sandbox, memory, None),
            }
        }
    }

    /// Destroys a container in the background; its GPUs become free when it is removed.
    fn destroy(self: &Arc<Self>, sandbox: Sandbox, memory: u64, gpus: Option<Grant>) {
        let shared = Arc::clone(self);
        self.engine.finish_later(async move {
            sandbox.destroy().await;
            drop(gpus);
            shared.desk().state.gone(memory);
            shared.settle();
        });
    }

    /// Passes a container to its waiter, or keeps it if the waiter has gone.
    fn lend(self: &Arc<Self>, waiter: u64, loan: u64, sandbox: Sandbox) {
        let answer = self.desk().answers.remove(&waiter);
        let lent = Lent::new(loan, sandbox, Arc::clone(self));
        let unheard = match answer {
            None => Some(lent),
            Some(answer) => answer.send(Ok(lent)).err().and_then(Result::ok),
        };
        if let Some(lent) = unheard {
            let (loan, sandbox, _gpus) = lent.into_parts();
            self.desk().state.unused(loan, sandbox, Instant::now());
            self.settle();
        }
    }

    /// Records the result of a start.
    fn heard_of(
        self: &Arc<Self>,
        kind: &Kind,
        thought: u64,
        started: Result<Sandbox, SandboxError>,
        took: Duration,
    ) {
        let now = Instant::now();
        let open = match started {
            Ok(sandbox) => {
                let mut desk = self.desk();
                let found = sandbox.features().memory_bytes;
                desk.state.started(
                    Started {
                        kind,
                        sandbox,
                        thought,
                        found,
                        took,
                    },
                    now,
                );
                desk.state.open
            }
            Err(error) => {
                let mut desk = self.desk();
                let waiter = desk.state.failed(kind, thought, rand::random(), now);
                let answer = waiter.and_then(|number| desk.answers.remove(&number));
                let open = desk.state.open;
                drop(desk);
                if let Some(answer) = answer {
                    // The receiver may have gone, and then needs no answer.
                    drop(answer.send(Err(error)));
                } else {
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
            self.empty();
        }
    }

    fn take_back(
        self: &Arc<Self>,
        loan: u64,
        sandbox: Sandbox,
        clean: bool,
        holds: Option<u64>,
        gpus: Option<Grant>,
    ) {
        let back = Returned {
            loan,
            sandbox,
            clean,
            holds,
        };
        let step = self.desk().state.returned(back, Instant::now());
        match step {
            Some(Step::Destroy { sandbox, memory }) => self.destroy(sandbox, memory, gpus),
            other => {
                drop(gpus);
                self.carry_out(other.into_iter().collect());
            }
        }
        self.settle();
    }

    /// Destroys every idle container.
    fn empty(self: &Arc<Self>) {
        let steps = {
            let mut desk = self.desk();
            let idle = desk.state.idle_where(|_| true);
            idle.into_iter()
                .map(|idle| desk.state.leave(idle))
                .collect()
        };
        self.carry_out(steps);
    }
}

/// Guard of a waiting attempt: dropping it removes the attempt from the waiters, if it is still
/// there.
struct Waiting<'a> {
    number: u64,
    shared: &'a Arc<Shared>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut desk = self.shared.desk();
        desk.answers.remove(&self.number);
        if desk.state.forget(self.number).is_some() {
            drop(desk);
            self.shared.settle();
        }
    }
}
