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

use sandhog_common::id::clip;
use sandhog_common::infer::Serving;
use sandhog_common::outcome::ErrorInfo;
use sandhog_common::queue::ModelState;
use sandhog_common::units::Millis;
use sandhog_runner::model::{FromServer, ToServer};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::calls::{Ask, Calls, Next, Tell};
use super::load::{self, LoadError, Loaded};
use super::seats::{Seat, Seats};
use crate::causes::with_causes;
use crate::gpu::{Demand, Gpus, Grant, Unmet};
use crate::metrics;
use crate::sandbox::{Engine, Heard, Image, SandboxError};

/// Number of loads in a row that may fail before jobs are given up.
const MOST_LOADS: u32 = 3;

/// Time for which a model that could not be loaded is not tried again.
const REST: Duration = Duration::from_secs(30);

/// Wait before the second attempt to start a server; doubles with each attempt.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// Upper bound of that wait.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Maximum length of a reported failure, in characters.
const KEPT_OF_FAILURE: usize = 6000;

/// Command to a supervisor.
#[derive(Debug)]
pub(super) enum Mail {
    /// A job sends an inference request.
    Ask(Box<Ask>),
    /// A job no longer waits for its answer.
    Gone,
    /// The model should stay loaded from now on.
    Stay,
}

/// State that a supervisor publishes about its model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Shown {
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
pub(super) struct Keeper {
    pub(super) engine: Engine,
    pub(super) gpus: Gpus,
    pub(super) image: Image,
    pub(super) serving: Serving,
    /// `true` if the server is loaded without demand and never stopped for being idle.
    pub(super) warm: bool,
    pub(super) mail: UnboundedReceiver<Mail>,
    pub(super) seats: Arc<Seats>,
    pub(super) shown: watch::Sender<Shown>,
    pub(super) stop: CancellationToken,
}

/// Reason for which a server ended.
enum Ended {
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
struct Broken {
    until: Instant,
    error: ErrorInfo,
}

impl Keeper {
    /// Runs until the worker stops or the last handle is dropped. Jobs that still wait at that
    /// point get no reply.
    pub(super) async fn run(mut self) {
        let stop = self.stop.clone();
        let mut calls = Calls::new(&self.serving);
        // The future may be dropped at any point: its container is removed when its handle is
        // dropped.
        let kept = stop.run_until_cancelled(self.keep(&mut calls)).await;
        tracing::debug!(
            image = %self.image.name,
            stopped = kept.is_none(),
            "model supervisor ended"
        );
        self.show(ModelState::Asleep);
    }

    async fn keep(&mut self, calls: &mut Calls) {
        let (mut failures, mut deaths) = (0_u32, 0_u32);
        let mut broken = None;
        while self.wanted(calls, &mut broken).await {
            self.show(ModelState::Loading);
            self.shown
                .send_modify(|shown| shown.waiting = calls.waiting());
            // GPUs are taken before the load permit, so that a model that waits for a GPU, perhaps
            // until a job ends, does not occupy a permit that another model could use.
            let gpus = match self.gpus().await {
                Ok(gpus) => gpus,
                Err(unmet) => {
                    deaths += 1;
                    self.dismiss_for(unmet.to_string(), calls, deaths).await;
                    continue;
                }
            };
            let seat = self.seats.take().await;
            let began = Instant::now();
            match load::load(&self.engine, &self.image, &self.serving, gpus.as_ref()).await {
                Ok(loaded) => {
                    failures = 0;
                    let took = began.elapsed();
                    let took_ms = Millis::from(took).0;
                    tracing::info!(image = %self.image.name, took_ms, "model loaded");
                    metrics::model_loaded(&self.image.name, took);
                    self.shown.send_modify(|shown| shown.loads += 1);
                    self.show(ModelState::Ready);
                    let ended = self.serve(loaded, calls, &seat, gpus, &mut deaths).await;
                    self.show(ModelState::Asleep);
                    drop(seat);
                    match ended {
                        Ended::Idle => tracing::info!(image = %self.image.name, "model stopped"),
                        Ended::Stopped => return,
                        Ended::Died(why) => {
                            tracing::warn!(image = %self.image.name, why, "model server died");
                            calls.lose(&format!("the model server of {} {why}", self.image.name));
                            metrics::model_died(&self.image.name);
                            self.shown.send_modify(|shown| shown.deaths += 1);
                            deaths += 1;
                            self.pause(calls, deaths).await;
                        }
                    }
                }
                Err(LoadError::Ours(why)) => {
                    drop((seat, gpus));
                    deaths += 1;
                    self.dismiss_for(why, calls, deaths).await;
                }
                Err(LoadError::Model(why)) => {
                    drop((seat, gpus));
                    failures += 1;
                    metrics::model_not_loaded(&self.image.name);
                    let error = self.explain(failures, &why);
                    tracing::warn!(
                        image = %self.image.name,
                        failures,
                        why = first_line(&why),
                        "model not loaded"
                    );
                    if failures < MOST_LOADS {
                        self.pause(calls, failures).await;
                    } else {
                        self.show(ModelState::Broken);
                        calls.dismiss(|| Tell::Hopeless(error.clone()));
                        broken = Some(Broken {
                            until: Instant::now() + REST,
                            error,
                        });
                    }
                }
            }
        }
    }

    fn read(&mut self, mail: Mail, calls: &mut Calls) {
        match mail {
            Mail::Ask(ask) => calls.push(*ask),
            // No action: the number of waiting jobs is counted again before the next step.
            Mail::Gone => {}
            Mail::Stay => self.warm = true,
        }
    }

    /// Takes the GPUs that the model needs, waiting until they are free. `None` if it needs none.
    async fn gpus(&self) -> Result<Option<Arc<Grant>>, Unmet> {
        match self.image.contract.gpu {
            None => Ok(None),
            Some(need) => {
                let grant = self.gpus.take(Demand::of(need)).await?;
                Ok(Some(Arc::new(grant)))
            }
        }
    }

    fn explain(&self, failures: u32, why: &str) -> ErrorInfo {
        let message = format!(
            "the model of image {} did not load, {failures} times in a row: {why}",
            self.image.name
        );
        ErrorInfo::new("model_not_loaded", clip(&message, KEPT_OF_FAILURE))
    }

    fn show(&self, state: ModelState) {
        self.shown.send_modify(|shown| shown.state = state);
    }

    /// Publishes the current load.
    fn show_load(&self, calls: &Calls) {
        self.shown.send_if_modified(|shown| {
            let now = Shown {
                running: calls.running(),
                waiting: calls.waiting(),
                ..*shown
            };
            let changed = *shown != now;
            *shown = now;
            changed
        });
    }

    /// Waits until a server is needed, and meanwhile rejects jobs while the model is marked as
    /// broken. Returns `false` if no server will be needed any more.
    async fn wanted(&mut self, calls: &mut Calls, broken: &mut Option<Broken>) -> bool {
        loop {
            if broken
                .as_ref()
                .is_some_and(|broken| broken.until <= Instant::now())
            {
                *broken = None;
            }
            self.show_load(calls);
            if let Some(Broken { error, .. }) = broken {
                calls.dismiss(|| Tell::Hopeless(error.clone()));
            } else if calls.any_waiting() || self.warm && !self.mail.is_closed() {
                return true;
            }
            let until = broken.as_ref().map(|broken| broken.until);
            let rested = async {
                match until {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                mail = self.mail.recv() => match mail {
                    Some(mail) => self.read(mail, calls),
                    None => return false,
                },
                () = rested => {}
            }
        }
    }

    /// Handles a missing server for a reason other than the model: every waiting job counts as
    /// lost, and the next attempt is delayed.
    async fn dismiss_for(&mut self, why: String, calls: &mut Calls, tries: u32) {
        calls.dismiss(|| Tell::Lost(why.clone()));
        self.pause(calls, tries).await;
    }

    /// Waits before the next attempt, longer each time, while jobs accumulate.
    async fn pause(&mut self, calls: &mut Calls, tries: u32) {
        let doubled = FIRST_PAUSE * 2_u32.saturating_pow(tries.saturating_sub(1).min(16));
        self.show(ModelState::Backoff);
        self.show_load(calls);
        let pause = doubled.min(LONGEST_PAUSE);
        let until = Instant::now() + pause.mul_f64(0.5 + rand::random::<f64>() / 2.0);
        while let Ok(Some(mail)) = tokio::time::timeout_at(until, self.mail.recv()).await {
            self.read(mail, calls);
        }
        // A closed command channel ends the wait early; the caller detects it at its next read.
    }

    /// Sends calls to a server until the server ends.
    async fn serve(
        &mut self,
        loaded: Loaded,
        calls: &mut Calls,
        seat: &Seat,
        gpus: Option<Arc<Grant>>,
        deaths: &mut u32,
    ) -> Ended {
        let Loaded {
            mut mouth, mut ear, ..
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
                match calls.next(Instant::now()) {
                    Next::Send(call) => {
                        let jobs = match &call {
                            ToServer::Call { inputs, .. } => inputs.len(),
                            ToServer::Cancel { .. } => 0,
                        };
                        metrics::model_called(&self.image.name, jobs);
                        self.shown.send_modify(|shown| shown.calls += 1);
                        if let Err(error) = mouth.say(&call).await {
                            break 'served Ended::Died(format!("is gone: {}", told_to_all(&error)));
                        }
                    }
                    Next::At(when) => break Some(when),
                    Next::Nothing => break None,
                }
            };
            for id in calls.unwanted() {
                // A server that does not accept the frame is detected by the reader.
                drop(mouth.say(&ToServer::Cancel { id }).await);
            }
            self.show_load(calls);
            let free = calls.is_empty();
            if free && !open {
                break Ended::Stopped;
            }
            let may_go = free && !self.warm;
            let goes = may_go.then(|| used + idle_for);
            let stuck = calls.stuck_at();
            let next = [look_again, goes, stuck].into_iter().flatten().min();
            let due = async {
                match next {
                    Some(when) => tokio::time::sleep_until(when).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                heard = ear.hear() => match heard {
                    Ok(Heard::Said(said)) => {
                        if let FromServer::Fault { why, .. } = &said {
                            let why = clip(why, 300);
                            tracing::warn!(
                                image = %self.image.name,
                                why,
                                "connection to a model server failed"
                            );
                        }
                        match calls.hear(said, Instant::now()) {
                            Ok(true) => {
                                *deaths = 0;
                                used = Instant::now();
                            }
                            Ok(false) => {}
                            Err(error) => break Ended::Died(format!("broke its protocol: {error}")),
                        }
                    }
                    // This output cannot be attributed to a single job, so it is discarded.
                    Ok(Heard::Printed(_data)) => {}
                    Ok(Heard::Ended(report)) => break Ended::Died(load::ended(&report)),
                    Err(error) => {
                        break Ended::Died(format!("is gone: {}", told_to_all(&error)));
                    }
                },
                mail = self.mail.recv(), if open => match mail {
                    Some(mail) => self.read(mail, calls),
                    None => open = false,
                },
                () = seat.asked_for(), if may_go => break Ended::Idle,
                () = gpus_asked_for(gpus.as_deref()), if may_go => break Ended::Idle,
                why = &mut lost => break Ended::Died(format!("lost its gpu {why}")),
                () = due => {
                    let now = Instant::now();
                    if goes.is_some_and(|when| when <= now) {
                        break Ended::Idle;
                    }
                    if stuck.is_some_and(|when| when <= now) {
                        let why = "did not answer long after the timeout of a call";
                        break Ended::Died(why.to_owned());
                    }
                }
            }
        };
        drop(mouth);
        ear.destroy().await;
        ended
    }
}

/// Waits until another task needs the GPUs that a server holds.
async fn gpus_asked_for(gpus: Option<&Grant>) {
    match gpus {
        Some(gpus) => gpus.asked_for().await,
        None => std::future::pending().await,
    }
}

/// Formats the error that ended a server, for all jobs that it served. A frame that cannot be
/// decoded is not quoted, because it may contain the answer to another job.
fn told_to_all(error: &SandboxError) -> String {
    match error {
        SandboxError::ModelProtocol { .. } => error.to_string(),
        error => with_causes(error),
    }
}

/// Returns the first line of a load failure, for the worker's log. The other lines are output of
/// the model and are meant only for its submitter.
fn first_line(why: &str) -> String {
    clip(why.lines().next().unwrap_or_default(), 300)
}
