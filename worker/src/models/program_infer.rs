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
use sandhog_core::id::{ImageName, clip};
use sandhog_core::image::FitError;
use sandhog_core::job::{CheckedJob, Job};
use sandhog_core::limits::LimitOverrides;
use sandhog_core::outcome::{Fault, InferUsage, Tokens};
use sandhog_core::units::Millis;
use sandhog_protocol::frames::InferQuota;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::admitted_call::AdmittedCall;
use super::infer_protocol::{
    InferProtocolRequest, InferProtocolResponse, InferRefusal, ResponseBody, id_of,
};
use super::models::Models;
use super::program_call::{CallReply, ProgramCall};
use crate::attempt::ExecutorError;
use crate::gpu::Demand;
use crate::sandbox::InferChannels;

/// Number of times that a request is sent if it is lost with its server.
const MAX_TRIES: u32 = 3;

/// Handle to the task that answers one program's requests. The task ends when the program's channel
/// is dropped.
#[derive(Debug)]
pub(crate) struct InferBrokerHandle {
    usage: SharedUsage,
    task: JoinHandle<()>,
}

/// The counts of one program's requests, shared by the task and its handle.
type SharedUsage = Arc<Mutex<InferUsage>>;

impl Models {
    /// Creates the request channel for a job's program that holds these GPUs, and starts the task
    /// that answers it. `None` if the job names no image to call.
    pub(crate) fn program_infer(
        &self,
        job: &CheckedJob,
        gpus: &[String],
    ) -> Option<(InferQuota, InferChannels, InferBrokerHandle)> {
        if job.infer.is_empty() {
            return None;
        }
        let policy = &self.shared.policy;
        let capacity = usize::try_from(policy.max_open).unwrap_or(usize::MAX);
        let (requests, requests_rx) = mpsc::channel(capacity);
        let (answers_tx, answers) = mpsc::channel(capacity);
        let usage = SharedUsage::default();
        let broker = InferBroker {
            models: self.clone(),
            named: job.infer.iter().cloned().collect(),
            gpus: gpus.to_vec(),
            usage: Arc::clone(&usage),
        };
        let handle = InferBrokerHandle {
            usage,
            task: tokio::spawn(broker.serve(requests_rx, answers_tx)),
        };
        let allowed = InferQuota {
            max_open: policy.max_open,
            // One request more, so that the program receives an error for the first one beyond the
            // limit.
            max_total: policy.max_calls.saturating_add(1),
        };
        Some((
            allowed,
            InferChannels {
                requests,
                responses: answers,
            },
            handle,
        ))
    }
}

impl InferBrokerHandle {
    /// Returns the counts of the requests. Must be called after the channel is dropped; open
    /// requests are given up.
    pub(crate) async fn finish(self) -> InferUsage {
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the task for inference requests of a program failed");
        }
        *self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers the requests of one program.
struct InferBroker {
    models: Models,
    named: BTreeSet<ImageName>,
    /// The GPUs of the program, by the names that the driver gives them.
    gpus: Vec<String>,
    usage: SharedUsage,
}

impl InferBroker {
    async fn serve(
        self,
        mut requests_rx: mpsc::Receiver<Vec<u8>>,
        answers_tx: mpsc::Sender<Vec<u8>>,
    ) {
        let mut open = FuturesUnordered::new();
        let mut calls = 0_u64;
        loop {
            tokio::select! {
                data = requests_rx.recv() => match data {
                    Some(data) => {
                        calls += 1;
                        self.count(|usage| usage.calls = calls);
                        open.push(Box::pin(self.answer(data, calls)));
                    }
                    // The program has ended; open requests are dropped with this future.
                    None => return,
                },
                Some(answer) = open.next(), if !open.is_empty() => {
                    if answers_tx.send(answer).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    fn count(&self, count: impl FnOnce(&mut InferUsage)) {
        count(&mut self.usage.lock().unwrap_or_else(PoisonError::into_inner));
    }

    async fn answer(&self, data: Vec<u8>, number: u64) -> Vec<u8> {
        let timed = UsageTimer {
            broker: self,
            began: Instant::now(),
        };
        let size = data.len();
        let request: Result<InferProtocolRequest, _> = serde_json::from_slice(&data);
        let (id, answer) = match request {
            Err(error) => (
                id_of(&data),
                Err(InferRefusal::new("bad_question", error.to_string())),
            ),
            Ok(request) => {
                drop(data);
                (Some(request.id), self.decide(request, size, number).await)
            }
        };
        drop(timed);
        let answer = match answer {
            Ok(value) => {
                let tokens = Tokens::of(&value).unwrap_or_default();
                self.count(|usage| {
                    usage.answered += 1;
                    usage.tokens.prompt = usage.tokens.prompt.saturating_add(tokens.prompt);
                    usage.tokens.completion =
                        usage.tokens.completion.saturating_add(tokens.completion);
                });
                ResponseBody::Value(value)
            }
            Err(refusal) => ResponseBody::Error(refusal),
        };
        serde_json::to_vec(&InferProtocolResponse { id, answer })
            .expect("an answer has string keys")
    }

    async fn decide(
        &self,
        request: InferProtocolRequest,
        size: usize,
        number: u64,
    ) -> Result<Value, InferRefusal> {
        let policy = &self.models.shared.policy;
        let image = &request.image;
        if policy.max_calls == 0 {
            let message = "programs on this worker may not call models (worker.program_calls is 0)";
            return Err(InferRefusal::new("not_allowed", message));
        }
        if !self.named.contains(image) {
            let message = format!("image {image} is not in the list `infer` of this job");
            return Err(InferRefusal::new("not_allowed", message));
        }
        if !policy.allows(image) {
            let message = format!(
                "programs on this worker may not call image {image} (see worker.program_models)"
            );
            return Err(InferRefusal::new("not_allowed", message));
        }
        if number > policy.max_calls {
            let most = policy.max_calls;
            let message =
                format!("this program has used all its {most} model calls (worker.program_calls)");
            return Err(InferRefusal::new("too_many_calls", message));
        }
        match request.timeout_ms.map(Millis::duration) {
            None => self.call(request, size).await,
            Some(within) => tokio::time::timeout(within, self.call(request, size))
                .await
                .unwrap_or_else(|_elapsed| Err(too_late(within))),
        }
    }

    async fn call(
        &self,
        request: InferProtocolRequest,
        size: usize,
    ) -> Result<Value, InferRefusal> {
        let resolved = self.models.shared.sandboxes.resolve(&request.image).await;
        let image = resolved.map_err(|error| match error.fault() {
            Fault::Submitter => InferRefusal::new(error.code(), error.to_string()),
            Fault::Service | Fault::Program | Fault::Nobody => {
                InferRefusal::new("infer_failed", "the worker's container engine failed")
            }
        })?;
        let unfit = |error: FitError| InferRefusal::new(error.code(), error.to_string());
        // Checked before the job, because an image without a model is the first fault to name.
        (image.contract.serving()).map_err(|error| unfit(error.into()))?;
        let job = Job {
            method: request.method,
            path: request.path,
            limits: LimitOverrides {
                timeout_ms: request.timeout_ms,
                ..LimitOverrides::default()
            },
            ..Job::infer(request.image, request.input)
        };
        let job = job.check().map_err(|error| unfit(error.into()))?;
        let AdmittedCall {
            call,
            input,
            limits,
            serving,
        } = self.models.admit(&image, &job).map_err(refuse)?;
        let model = self.models.model(&image, serving, false);
        if let Some(need) = image.contract.gpu
            && !model.is_loaded()
            && !(self.models.shared.gpus).can_meet_outside(&Demand::of(need), &self.gpus)
        {
            // The model would wait for GPUs until this program ends, and the program would wait for
            // the model.
            let image = &image.name;
            let message = format!("the model of image {image} needs GPUs that this program holds");
            return Err(InferRefusal::new("no_gpu", message));
        }
        let timeout = limits.timeout_ms.duration();
        let mut tries = 0;
        loop {
            tries += 1;
            let pending = ProgramCall {
                call: call.clone(),
                input: input.clone(),
                size,
                exclusive: tries > 1,
                timeout,
            };
            match model.call(pending).await {
                CallReply::Answer(Ok(value)) => return Ok(value),
                CallReply::Answer(Err(exception)) => return Err(InferRefusal::raised(exception)),
                CallReply::Late => return Err(too_late(timeout)),
                CallReply::Lost(_why) if tries < MAX_TRIES => {}
                CallReply::Lost(why) => {
                    return Err(InferRefusal::new("model_lost", first_line(&why)));
                }
                CallReply::Hopeless(error) => {
                    return Err(InferRefusal::new(&error.code, first_line(&error.message)));
                }
            }
        }
    }
}

/// Counts the time of a request, however the request ends.
struct UsageTimer<'a> {
    broker: &'a InferBroker,
    began: Instant,
}

impl Drop for UsageTimer<'_> {
    fn drop(&mut self) {
        let took = Millis::from(self.began.elapsed());
        self.broker
            .count(|usage| usage.wall_ms = Millis(usage.wall_ms.0.saturating_add(took.0)));
    }
}

fn too_late(within: Duration) -> InferRefusal {
    let message = format!("there was no answer within {}", Millis::from(within));
    InferRefusal::new("timed_out", message)
}

fn refuse(error: ExecutorError) -> InferRefusal {
    match error {
        ExecutorError::Rejected(info) | ExecutorError::Hopeless(info) => {
            InferRefusal::new(&info.code, info.message)
        }
        ExecutorError::Fault { message }
        | ExecutorError::Full { message }
        | ExecutorError::Away { message } => InferRefusal::new("infer_failed", message),
    }
}

/// Returns the first line only. The others may be log output, which can contain the requests of
/// other jobs.
fn first_line(why: &str) -> String {
    clip(why.lines().next().unwrap_or_default(), 300)
}
