//! The supervisor of one model: loads its server when a job needs it, sends it calls, and stops it
//! when it is idle.
//!
//! ```text
//! asleep ──a job──► loading ──ready──► serving ──idle──► asleep
//!                      │ failed            │ died
//!                      └──backoff, up to three times, then every job gets the error for a while
//! ```
//!
//! A model that cannot be loaded is not retried forever. If a server dies, the jobs whose calls it
//! had begun count as lost.

use std::sync::Arc;
use std::time::Duration;

use sandhog_core::id::clip;
use sandhog_core::infer::Serving;
use sandhog_core::outcome::ErrorInfo;
use sandhog_core::units::{ByteCount, Millis};
use sandhog_protocol::model::{FromServer, ToServer};
use sandhog_queue::ModelState;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::dynamic_batcher::{BatcherAction, CallEvent, DynamicBatcher, PendingCall};
use super::load::{self, LoadError, LoadedServer};
use super::load_permits::{LoadPermit, LoadPermits};
use crate::gpu::{Demand, Gpus, Grant, Unsatisfiable};
use crate::metrics;
use crate::pool::{MemoryHold, ModelDemand, Pool, UNMEASURED_MEMORY};
use crate::sandbox::{Image, ModelServerEvent, SandboxError, Sandboxes};
use sandhog_core::error_chain::error_chain;

/// Number of loads in a row that may fail before jobs are given up.
const MAX_LOAD_FAILURES: u32 = 3;

/// Time for which a model that could not be loaded is not tried again.
const BROKEN_FOR: Duration = Duration::from_secs(30);

/// Wait before the second attempt to start a server; doubles with each attempt.
const FIRST_RESTART_DELAY: Duration = Duration::from_millis(250);

/// Upper bound of that wait.
const MAX_RESTART_DELAY: Duration = Duration::from_secs(30);

/// Maximum length of a reported failure, in characters.
const MAX_FAILURE_CHARS: usize = 6000;

/// Command to a supervisor.
#[derive(Debug)]
pub(super) enum ModelCommand {
    /// A job sends an inference request.
    Call(Box<PendingCall>),
    /// A job no longer waits for its answer.
    CallAbandoned,
    /// The model should stay loaded from now on.
    KeepLoaded,
}

/// State that a supervisor publishes about its model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct ModelStatus {
    /// State of the server. [`ModelState::Busy`] is never set here; it is derived from `running`.
    pub(super) state: ModelState,
    pub(super) running: usize,
    pub(super) waiting: usize,
    pub(super) calls: u64,
    pub(super) loads: u64,
    pub(super) deaths: u64,
}

/// Supervisor of one model.
#[derive(Debug)]
pub(super) struct ModelSupervisor {
    pub(super) sandboxes: Sandboxes,
    pub(super) pool: Pool,
    pub(super) gpus: Gpus,
    pub(super) image: Image,
    pub(super) serving: Serving,
    /// `true` if the server is loaded without demand and never stopped for being idle, unless
    /// others lack its memory.
    pub(super) warm: bool,
    pub(super) commands: UnboundedReceiver<ModelCommand>,
    pub(super) permits: Arc<LoadPermits>,
    pub(super) status: watch::Sender<ModelStatus>,
    pub(super) stop: CancellationToken,
}

/// Reason for which a server ended.
enum ServerEnd {
    /// It was idle.
    Idle,
    /// The worker is stopping, or the last handle to this supervisor is gone.
    Stopped,
    /// The server died or broke its protocol. The text is written by the worker: output that the
    /// server printed while it served may contain the input of any job, and every affected job
    /// receives this text.
    Died(String),
}

/// Reason for which no server is started for now.
struct BrokenModel {
    until: Instant,
    error: ErrorInfo,
}

impl ModelSupervisor {
    /// Runs until the worker stops or the last handle is dropped. Jobs that still wait at that
    /// point get no reply.
    pub(super) async fn run(mut self) {
        let stop = self.stop.clone();
        let mut batcher = DynamicBatcher::new(&self.serving);
        // The future may be dropped at any point: its container is removed when its handle is
        // dropped.
        let ended = stop.run_until_cancelled(self.supervise(&mut batcher)).await;
        tracing::debug!(
            image = %self.image.name,
            stopped = ended.is_none(),
            "model supervisor ended"
        );
        self.publish_state(ModelState::Asleep);
    }

    async fn supervise(&mut self, batcher: &mut DynamicBatcher) {
        let (mut failures, mut deaths) = (0_u32, 0_u32);
        let mut broken = None;
        while self.wait_until_wanted(batcher, &mut broken).await {
            self.publish_state(ModelState::Loading);
            self.status
                .send_modify(|status| status.waiting = batcher.waiting());
            // GPUs are taken before the load permit, so that a model that waits for a GPU, perhaps
            // until a job ends, does not occupy a permit that another model could use.
            let gpus = match self.take_gpus().await {
                Ok(gpus) => gpus,
                Err(unmet) => {
                    deaths += 1;
                    self.fail_waiting_and_back_off(unmet.to_string(), batcher, deaths)
                        .await;
                    continue;
                }
            };
            let permit = self.permits.take().await;
            let memory = self.take_memory(batcher).await;
            let began = Instant::now();
            match load::load(&self.sandboxes, &self.image, &self.serving, gpus.as_ref()).await {
                Ok(loaded) => {
                    failures = 0;
                    let took = began.elapsed();
                    let took_ms = Millis::from(took).0;
                    tracing::info!(image = %self.image.name, took_ms, "model loaded");
                    metrics::model_loaded(&self.image.name, took);
                    self.status.send_modify(|status| status.loads += 1);
                    self.publish_state(ModelState::Ready);
                    let ended = self
                        .serve(loaded, batcher, (&permit, &memory), gpus, &mut deaths)
                        .await;
                    self.publish_state(ModelState::Asleep);
                    drop((permit, memory));
                    match ended {
                        ServerEnd::Idle => {
                            tracing::info!(image = %self.image.name, "model stopped")
                        }
                        ServerEnd::Stopped => return,
                        ServerEnd::Died(why) => {
                            tracing::warn!(image = %self.image.name, why, "model server died");
                            batcher.server_lost(&format!(
                                "the model server of {} {why}",
                                self.image.name
                            ));
                            metrics::model_died(&self.image.name);
                            self.status.send_modify(|status| status.deaths += 1);
                            deaths += 1;
                            self.back_off(batcher, deaths).await;
                        }
                    }
                }
                Err(LoadError::Ours(why)) => {
                    drop((permit, memory, gpus));
                    deaths += 1;
                    self.fail_waiting_and_back_off(why, batcher, deaths).await;
                }
                Err(LoadError::Model(why)) => {
                    drop((permit, memory, gpus));
                    failures += 1;
                    metrics::model_not_loaded(&self.image.name);
                    let error = self.load_failure(failures, &why);
                    tracing::warn!(
                        image = %self.image.name,
                        failures,
                        why = first_line(&why),
                        "model not loaded"
                    );
                    if failures < MAX_LOAD_FAILURES {
                        self.back_off(batcher, failures).await;
                    } else {
                        self.publish_state(ModelState::Broken);
                        batcher.fail_waiting(|| CallEvent::Hopeless(error.clone()));
                        broken = Some(BrokenModel {
                            until: Instant::now() + BROKEN_FOR,
                            error,
                        });
                    }
                }
            }
        }
    }

    fn handle_command(&mut self, command: ModelCommand, batcher: &mut DynamicBatcher) {
        match command {
            ModelCommand::Call(call) => batcher.push(*call),
            // No action: the number of waiting jobs is counted again before the next step.
            ModelCommand::CallAbandoned => {}
            ModelCommand::KeepLoaded => self.warm = true,
        }
    }

    /// Takes the GPUs that the model needs, waiting until they are free. `None` if it needs none.
    async fn take_gpus(&self) -> Result<Option<Arc<Grant>>, Unsatisfiable> {
        match self.image.contract.gpu {
            None => Ok(None),
            Some(need) => {
                let grant = self.gpus.acquire(Demand::of(need)).await?;
                Ok(Some(Arc::new(grant)))
            }
        }
    }

    /// Takes the memory that the server may use. If no job waits for the model, it gets memory that
    /// nothing else lacks.
    async fn take_memory(&mut self, batcher: &mut DynamicBatcher) -> MemoryHold {
        // If the limits are not valid, the load fails and reports them.
        let server = load::caps(&self.image).map_or(0, |caps| caps.cell.memory_bytes);
        let memory = ByteCount(server.saturating_add(UNMEASURED_MEMORY.0));
        let shape = self.sandboxes.shape(&self.image);
        let (pool, image) = (self.pool.clone(), self.image.clone());
        loop {
            let demand = match batcher.any_waiting() {
                true => ModelDemand::Job,
                false => ModelDemand::Warm,
            };
            tokio::select! {
                held = pool.hold_memory(&image, &shape, memory, demand) => return held,
                command = self.commands.recv(), if demand == ModelDemand::Warm => match command {
                    Some(command) => self.handle_command(command, batcher),
                    // The last handle is gone: `serve` ends the server at once.
                    None => return pool.hold_memory(&image, &shape, ByteCount(0), demand).await,
                },
            }
        }
    }

    fn load_failure(&self, failures: u32, why: &str) -> ErrorInfo {
        let message = format!(
            "the model of image {} did not load, {failures} times in a row: {why}",
            self.image.name
        );
        ErrorInfo::new("model_not_loaded", clip(&message, MAX_FAILURE_CHARS))
    }

    fn publish_state(&self, state: ModelState) {
        self.status.send_modify(|status| status.state = state);
    }

    /// Publishes the current load.
    fn publish_load(&self, batcher: &DynamicBatcher) {
        self.status.send_if_modified(|status| {
            let now = ModelStatus {
                running: batcher.running(),
                waiting: batcher.waiting(),
                ..*status
            };
            let changed = *status != now;
            *status = now;
            changed
        });
    }

    /// Waits until a server is needed, and meanwhile rejects jobs while the model is marked as
    /// broken. Returns `false` if no server will be needed any more.
    async fn wait_until_wanted(
        &mut self,
        batcher: &mut DynamicBatcher,
        broken: &mut Option<BrokenModel>,
    ) -> bool {
        loop {
            if broken
                .as_ref()
                .is_some_and(|broken| broken.until <= Instant::now())
            {
                *broken = None;
            }
            self.publish_load(batcher);
            if let Some(BrokenModel { error, .. }) = broken {
                batcher.fail_waiting(|| CallEvent::Hopeless(error.clone()));
            } else if batcher.any_waiting() || self.warm && !self.commands.is_closed() {
                return true;
            }
            let until = broken.as_ref().map(|broken| broken.until);
            let recovered = async {
                match until {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.handle_command(command, batcher),
                    None => return false,
                },
                () = recovered => {}
            }
        }
    }

    /// Handles a missing server for a reason other than the model: every waiting job counts as
    /// lost, and the next attempt is delayed.
    async fn fail_waiting_and_back_off(
        &mut self,
        why: String,
        batcher: &mut DynamicBatcher,
        tries: u32,
    ) {
        batcher.fail_waiting(|| CallEvent::Lost(why.clone()));
        self.back_off(batcher, tries).await;
    }

    /// Waits before the next attempt, longer each time, while jobs accumulate.
    async fn back_off(&mut self, batcher: &mut DynamicBatcher, tries: u32) {
        let doubled = FIRST_RESTART_DELAY * 2_u32.saturating_pow(tries.saturating_sub(1).min(16));
        self.publish_state(ModelState::Backoff);
        self.publish_load(batcher);
        let delay = doubled.min(MAX_RESTART_DELAY);
        let until = Instant::now() + delay.mul_f64(0.5 + rand::random::<f64>() / 2.0);
        while let Ok(Some(command)) = tokio::time::timeout_at(until, self.commands.recv()).await {
            self.handle_command(command, batcher);
        }
        // A closed command channel ends the wait early; the caller detects it at its next read.
    }

    /// Sends calls to a server until the server ends.
    async fn serve(
        &mut self,
        loaded: LoadedServer,
        batcher: &mut DynamicBatcher,
        (permit, memory): (&LoadPermit, &MemoryHold),
        gpus: Option<Arc<Grant>>,
        deaths: &mut u32,
    ) -> ServerEnd {
        let LoadedServer {
            mut writer,
            mut reader,
            ..
        } = loaded;
        let idle_for = Duration::from_secs(self.serving.idle_timeout_s.into());
        let mut used = Instant::now();
        let mut open = true;
        let mut lost = std::pin::pin!(async {
            match &gpus {
                Some(gpus) => gpus.lost().await,
                None => std::future::pending().await,
            }
        });
        let ended = 'served: loop {
            let look_again = loop {
                match batcher.next(Instant::now()) {
                    BatcherAction::Send(call) => {
                        let jobs = match &call {
                            ToServer::Call { inputs, .. } => inputs.len(),
                            ToServer::Cancel { .. } => 0,
                        };
                        metrics::model_called(&self.image.name, jobs);
                        self.status.send_modify(|status| status.calls += 1);
                        if let Err(error) = writer.send(&call).await {
                            break 'served ServerEnd::Died(format!(
                                "is gone: {}",
                                shareable_error(&error)
                            ));
                        }
                    }
                    BatcherAction::At(when) => break Some(when),
                    BatcherAction::Nothing => break None,
                }
            };
            for id in batcher.abandoned_calls() {
                // A server that does not accept the frame is detected by the reader.
                drop(writer.send(&ToServer::Cancel { id }).await);
            }
            self.publish_load(batcher);
            let free = batcher.is_empty();
            if free && !open {
                break ServerEnd::Stopped;
            }
            let may_go = free && !self.warm;
            let goes = may_go.then(|| used + idle_for);
            let stuck = batcher.stuck_at();
            let next = [look_again, goes, stuck].into_iter().flatten().min();
            let due = async {
                match next {
                    Some(when) => tokio::time::sleep_until(when).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                heard = reader.recv() => match heard {
                    Ok(ModelServerEvent::Frame(said)) => {
                        if let FromServer::Fault { why, .. } = &said {
                            let why = clip(why, 300);
                            tracing::warn!(
                                image = %self.image.name,
                                why,
                                "connection to a model server failed"
                            );
                        }
                        match batcher.handle_message(said, Instant::now()) {
                            Ok(true) => {
                                *deaths = 0;
                                used = Instant::now();
                            }
                            Ok(false) => {}
                            Err(error) => {
                                break ServerEnd::Died(format!("broke its protocol: {error}"));
                            }
                        }
                    }
                    // This output cannot be attributed to a single job, so it is discarded.
                    Ok(ModelServerEvent::Printed(_data)) => {}
                    Ok(ModelServerEvent::Ended(report)) => {
                        break ServerEnd::Died(load::describe_end(&report));
                    }
                    Err(error) => {
                        break ServerEnd::Died(format!("is gone: {}", shareable_error(&error)));
                    }
                },
                command = self.commands.recv(), if open => match command {
                    Some(command) => self.handle_command(command, batcher),
                    None => open = false,
                },
                () = permit.wait_for_demand(), if may_go => break ServerEnd::Idle,
                // Jobs come first: a model that should stay loaded is loaded again after them.
                () = memory.wait_for_demand(), if free => break ServerEnd::Idle,
                () = wait_for_gpu_demand(gpus.as_deref()), if may_go => break ServerEnd::Idle,
                why = &mut lost => break ServerEnd::Died(format!("lost its gpu {why}")),
                () = due => {
                    let now = Instant::now();
                    if goes.is_some_and(|when| when <= now) {
                        break ServerEnd::Idle;
                    }
                    if stuck.is_some_and(|when| when <= now) {
                        let why = "did not answer long after the timeout of a call";
                        break ServerEnd::Died(why.to_owned());
                    }
                }
            }
        };
        drop(writer);
        reader.destroy().await;
        ended
    }
}

/// Waits until another task needs the GPUs that a server holds.
async fn wait_for_gpu_demand(gpus: Option<&Grant>) {
    match gpus {
        Some(gpus) => gpus.wait_for_demand().await,
        None => std::future::pending().await,
    }
}

/// Formats the error that ended a server, for all jobs that it served. A frame that cannot be
/// decoded is not quoted, because it may contain the answer to another job.
fn shareable_error(error: &SandboxError) -> String {
    match error {
        SandboxError::ModelProtocol { .. } => error.to_string(),
        error => error_chain(error),
    }
}

/// Returns the first line of a load failure, for the worker's log. The other lines are output of
/// the model and are meant only for its submitter.
fn first_line(why: &str) -> String {
    clip(why.lines().next().unwrap_or_default(), 300)
}
