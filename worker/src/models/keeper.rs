//! The keeper of one model: loads its server when a job wants it, feeds it calls, and stops it when nobody does.
//!
//! ```text
//! asleep ──a job──► loading ──ready──► serving ──idle──► asleep
//!                      │ failed            │ died
//!                      └──backoff, up to three times, then every job is told so for a while
//! ```
//!
//! It refuses to load for ever what cannot be loaded, and to guess for a job whether the answer of a dead server would
//! have come.

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

/// Loads in a row that may fail before jobs are given up.
const MOST_LOADS: u32 = 3;

/// How long a model that could not be loaded is not tried again.
const REST: Duration = Duration::from_secs(30);

/// The wait before the second try to have a server; doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// The longest such wait.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The most of a failure that is told, in characters.
const KEPT_OF_FAILURE: usize = 6000;

/// What a keeper is sent.
#[derive(Debug)]
pub(super) enum Mail {
    /// A job has a question.
    Ask(Box<Ask>),
    /// A job does not wait any more.
    Gone,
    /// The model is to stay loaded from now on.
    Stay,
}

/// What a keeper shows of its model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Shown {
    /// What its server does; told from `running` whether it is busy.
    pub(super) state: ModelState,
    pub(super) running: usize,
    pub(super) waiting: usize,
    pub(super) calls: u64,
    pub(super) loads: u64,
    pub(super) deaths: u64,
}

/// Keeps one model.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) engine: Engine,
    pub(super) gpus: Gpus,
    pub(super) image: Image,
    pub(super) serving: Serving,
    /// Whether its server is loaded before anybody asks, and never stopped for being idle.
    pub(super) warm: bool,
    pub(super) mail: UnboundedReceiver<Mail>,
    pub(super) seats: Arc<Seats>,
    pub(super) shown: watch::Sender<Shown>,
    pub(super) stop: CancellationToken,
}

/// How a server's time ended.
enum Ended {
    /// Nobody needed it.
    Idle,
    /// The worker stops, or nobody can ask this keeper any more.
    Stopped,
    /// It died or broke its protocol: how, in words of ours. What it printed while it served may be of anybody's input, and
    /// all who asked are told this.
    Died(String),
}

/// Why no server is tried for now.
struct Broken {
    until: Instant,
    error: ErrorInfo,
}

impl Keeper {
    /// Keeps until the worker stops or nobody can ask any more. Jobs still waiting then are told nothing.
    pub(super) async fn run(mut self) {
        let stop = self.stop.clone();
        let mut calls = Calls::new(&self.serving);
        // Dropped wherever it is: a container goes with what holds it.
        let kept = stop.run_until_cancelled(self.keep(&mut calls)).await;
        tracing::debug!(image = %self.image.name, stopped = kept.is_none(), "model kept no longer");
        self.show(ModelState::Asleep);
    }

    async fn keep(&mut self, calls: &mut Calls) {
        let (mut failures, mut deaths) = (0_u32, 0_u32);
        let mut broken = None;
        while self.wanted(calls, &mut broken).await {
            self.show(ModelState::Loading);
            self.shown
                .send_modify(|shown| shown.waiting = calls.waiting());
            // In this order: who waits for a GPU, perhaps for as long as a job has it, keeps no other model from a seat.
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
                    tracing::warn!(image = %self.image.name, failures, why = first_line(&why), "model not loaded");
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
            // Who waits is counted before anything else is done.
            Mail::Gone => {}
            Mail::Stay => self.warm = true,
        }
    }

    /// The GPUs that the image's model wants, once they are free; none when it wants none.
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

    /// Shows how much there is to do.
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

    /// Waits until a server is wanted; not while it is known that there can be none. Whether one ever will be.
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

    /// There is no server for a reason that is not the model's: every waiting job is lost to it, and the next try waits.
    async fn dismiss_for(&mut self, why: String, calls: &mut Calls, tries: u32) {
        calls.dismiss(|| Tell::Lost(why.clone()));
        self.pause(calls, tries).await;
    }

    /// Waits before the next try, longer each time, while jobs gather.
    async fn pause(&mut self, calls: &mut Calls, tries: u32) {
        let doubled = FIRST_PAUSE * 2_u32.saturating_pow(tries.saturating_sub(1).min(16));
        self.show(ModelState::Backoff);
        self.show_load(calls);
        let pause = doubled.min(LONGEST_PAUSE);
        let until = Instant::now() + pause.mul_f64(0.5 + rand::random::<f64>() / 2.0);
        while let Ok(Some(mail)) = tokio::time::timeout_at(until, self.mail.recv()).await {
            self.read(mail, calls);
        }
        // A closed mailbox ends the wait early; the next question for work notices.
    }

    /// Feeds a server until its time ends.
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
                // A server that does not listen is noticed by the ear.
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
                            tracing::warn!(image = %self.image.name, why, "connection to a model server failed");
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
                    // It is nobody's alone.
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
                        let why = "answered nothing long after its time";
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

/// Ends when somebody else wants the GPUs that a server has.
async fn gpus_asked_for(gpus: Option<&Grant>) {
    match gpus {
        Some(gpus) => gpus.asked_for().await,
        None => std::future::pending().await,
    }
}

/// An error that ended a server, for everybody whom it served. A frame that does not read is not quoted: it may be another's
/// answer.
fn told_to_all(error: &SandboxError) -> String {
    match error {
        SandboxError::ModelProtocol { .. } => error.to_string(),
        error => with_causes(error),
    }
}

/// The start of a failure to load, for our own log: the rest is what the model printed, and that is for its submitter.
fn first_line(why: &str) -> String {
    clip(why.lines().next().unwrap_or_default(), 300)
}
