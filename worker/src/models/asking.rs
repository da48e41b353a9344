//! Inference requests of running programs: handles untrusted frames and returns the answers of
//! loaded models.
//!
//! A request is answered by the models of the worker that runs the program, in the same batches and
//! under the same limits as jobs of kind `infer`. It does not go through the queue: the program
//! holds a slot and memory, the model has its own load permit and container, and neither waits for
//! the other. Model servers get no such channel, so a model cannot call another model.
//!
//! A request is rejected if neither the job nor the operator allows its image, or if the program
//! has used all its requests. A program learns nothing about the worker, about other jobs or about
//! the output of a model server.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use sandhog_common::config::WorkerSettings;
use sandhog_common::id::{ImageName, clip};
use sandhog_common::job::Job;
use sandhog_common::limits::LimitWishes;
use sandhog_common::outcome::{Asked, Fault, Tokens};
use sandhog_common::units::Millis;
use sandhog_runner::protocol::Questions;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Models;
use super::job::Admitted;
use super::question::{Question, Reply};
use super::slip::{Answer, Asks, Refusal, Told, id_of};
use crate::attempt::ExecutorError;
use crate::gpu::Demand;
use crate::sandbox::Desk;

/// Number of times that a request is sent if it is lost with its server.
const TRIES: u32 = 3;

/// The inference requests that the operator allows programs to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Policy {
    /// The allowed images; empty means all.
    images: BTreeSet<ImageName>,
    most: u64,
    at_once: u32,
}

impl Policy {
    /// Creates the policy from the settings.
    pub(super) fn new(settings: &WorkerSettings) -> Self {
        Self {
            images: settings.program_models.iter().cloned().collect(),
            most: settings.program_calls.into(),
            at_once: settings.program_calls_at_once.max(1),
        }
    }

    fn allows(&self, image: &ImageName) -> bool {
        self.images.is_empty() || self.images.contains(image)
    }
}

/// Handle to the task that answers one program's requests. The task ends when the program's channel
/// is dropped.
#[derive(Debug)]
pub(crate) struct Answering {
    tally: Tally,
    task: JoinHandle<()>,
}

type Tally = Arc<Mutex<Asked>>;

impl Models {
    /// Creates the request channel for a job's program that holds these GPUs, and starts the task
    /// that answers it. `None` if the job names no image to call.
    pub(crate) fn desk(&self, job: &Job, gpus: &[String]) -> Option<(Questions, Desk, Answering)> {
        if job.infer.is_empty() {
            return None;
        }
        let policy = &self.shared.policy;
        let places = usize::try_from(policy.at_once).unwrap_or(usize::MAX);
        let (questions, asked) = mpsc::channel(places);
        let (tell, answers) = mpsc::channel(places);
        let tally = Tally::default();
        let clerk = Clerk {
            models: self.clone(),
            named: job.infer.iter().cloned().collect(),
            gpus: gpus.to_vec(),
            tally: Arc::clone(&tally),
        };
        let answering = Answering {
            tally,
            task: tokio::spawn(clerk.serve(asked, tell)),
        };
        let allowed = Questions {
            at_once: policy.at_once,
            // One request more, so that the program receives an error for the first one beyond the
            // limit.
            most: policy.most.saturating_add(1),
        };
        Some((allowed, Desk { questions, answers }, answering))
    }
}

impl Answering {
    /// Returns the counts of the requests. Must be called after the channel is dropped; open
    /// requests are given up.
    pub(crate) async fn finish(self) -> Asked {
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the task for inference requests of a program failed");
        }
        *self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers the requests of one program.
struct Clerk {
    models: Models,
    named: BTreeSet<ImageName>,
    /// The GPUs of the program, by the names that the driver gives them.
    gpus: Vec<String>,
    tally: Tally,
}

impl Clerk {
    async fn serve(self, mut asked: mpsc::Receiver<Vec<u8>>, tell: mpsc::Sender<Vec<u8>>) {
        let mut open = FuturesUnordered::new();
        let mut calls = 0_u64;
        loop {
            tokio::select! {
                data = asked.recv() => match data {
                    Some(data) => {
                        calls += 1;
                        self.count(|tally| tally.calls = calls);
                        open.push(Box::pin(self.answer(data, calls)));
                    }
                    // The program has ended; open requests are dropped with this future.
                    None => return,
                },
                Some(answer) = open.next(), if !open.is_empty() => {
                    if tell.send(answer).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    fn count(&self, count: impl FnOnce(&mut Asked)) {
        count(&mut self.tally.lock().unwrap_or_else(PoisonError::into_inner));
    }

    async fn answer(&self, data: Vec<u8>, number: u64) -> Vec<u8> {
        let timed = Timed {
            clerk: self,
            began: Instant::now(),
        };
        let size = data.len();
        let asks: Result<Asks, _> = serde_json::from_slice(&data);
        let (id, answer) = match asks {
            Err(error) => (
                id_of(&data),
                Err(Refusal::new("bad_question", error.to_string())),
            ),
            Ok(asks) => {
                drop(data);
                (Some(asks.id), self.decide(asks, size, number).await)
            }
        };
        drop(timed);
        let answer = match answer {
            Ok(value) => {
                let tokens = Tokens::of(&value).unwrap_or_default();
                self.count(|tally| {
                    tally.answered += 1;
                    tally.tokens.prompt = tally.tokens.prompt.saturating_add(tokens.prompt);
                    tally.tokens.completion =
                        tally.tokens.completion.saturating_add(tokens.completion);
                });
                Told::Value(value)
            }
            Err(refusal) => Told::Error(refusal),
        };
        serde_json::to_vec(&Answer { id, answer }).expect("an answer has string keys")
    }

    async fn decide(&self, asks: Asks, size: usize, number: u64) -> Result<Value, Refusal> {
        let policy = &self.models.shared.policy;
        let image = &asks.image;
        if policy.most == 0 {
            let message = "programs on this worker may not call models (worker.program_calls is 0)";
            return Err(Refusal::new("not_allowed", message));
        }
        if !self.named.contains(image) {
            let message = format!("image {image} is not in the list `infer` of this job");
            return Err(Refusal::new("not_allowed", message));
        }
        if !policy.allows(image) {
            let message = format!(
                "programs on this worker may not call image {image} (see worker.program_models)"
            );
            return Err(Refusal::new("not_allowed", message));
        }
        if number > policy.most {
            let most = policy.most;
            let message =
                format!("this program has used all its {most} model calls (worker.program_calls)");
            return Err(Refusal::new("too_many_calls", message));
        }
        match asks.timeout_ms.map(Millis::duration) {
            None => self.ask(asks, size).await,
            Some(within) => tokio::time::timeout(within, self.ask(asks, size))
                .await
                .unwrap_or_else(|_elapsed| Err(too_late(within))),
        }
    }

    async fn ask(&self, asks: Asks, size: usize) -> Result<Value, Refusal> {
        let resolved = self.models.shared.engine.resolve(&asks.image).await;
        let image = resolved.map_err(|error| match error.fault() {
            Fault::Submitter => Refusal::new(error.code(), error.to_string()),
            Fault::Service | Fault::Program | Fault::Nobody => {
                Refusal::new("infer_failed", "the worker's container engine failed")
            }
        })?;
        let job = Job {
            method: asks.method,
            path: asks.path,
            limits: LimitWishes {
                timeout_ms: asks.timeout_ms,
                ..LimitWishes::default()
            },
            ..Job::infer(asks.image, asks.input)
        };
        let Admitted {
            call,
            input,
            limits,
            serving,
        } = self.models.admit(&image, &job).map_err(refuse)?;
        let model = self.models.model(&image, serving, false);
        if let Some(need) = image.contract.gpu
            && !model.is_loaded()
            && !(self.models.shared.gpus).could_meet_beside(&Demand::of(need), &self.gpus)
        {
            // The model would wait for GPUs until this program ends, and the program would wait for
            // the model.
            let image = &image.name;
            let message = format!("the model of image {image} needs GPUs that this program holds");
            return Err(Refusal::new("no_gpu", message));
        }
        let timeout = limits.timeout_ms.duration();
        let mut tries = 0;
        loop {
            tries += 1;
            let question = Question {
                call: call.clone(),
                input: input.clone(),
                size,
                alone: tries > 1,
                timeout,
            };
            match model.ask(question).await {
                Reply::Answer(Ok(value)) => return Ok(value),
                Reply::Answer(Err(exception)) => return Err(Refusal::raised(exception)),
                Reply::Late => return Err(too_late(timeout)),
                Reply::Lost(_why) if tries < TRIES => {}
                Reply::Lost(why) => return Err(Refusal::new("model_lost", first_line(&why))),
                Reply::Hopeless(error) => {
                    return Err(Refusal::new(&error.code, first_line(&error.message)));
                }
            }
        }
    }
}

/// Counts the time of a request, however the request ends.
struct Timed<'a> {
    clerk: &'a Clerk,
    began: Instant,
}

impl Drop for Timed<'_> {
    fn drop(&mut self) {
        let took = Millis::from(self.began.elapsed());
        self.clerk
            .count(|tally| tally.wall_ms = Millis(tally.wall_ms.0.saturating_add(took.0)));
    }
}

fn too_late(within: Duration) -> Refusal {
    let message = format!("there was no answer within {}", Millis::from(within));
    Refusal::new("timed_out", message)
}

fn refuse(error: ExecutorError) -> Refusal {
    match error {
        ExecutorError::Rejected(info) | ExecutorError::Hopeless(info) => {
            Refusal::new(&info.code, info.message)
        }
        ExecutorError::Fault { message } | ExecutorError::Full { message } => {
            Refusal::new("infer_failed", message)
        }
    }
}

/// Returns the first line only. The others may be log output, which can contain the requests of
/// other jobs.
fn first_line(why: &str) -> String {
    clip(why.lines().next().unwrap_or_default(), 300)
}
