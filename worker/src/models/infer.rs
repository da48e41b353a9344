//! Runs one job of kind `infer`, from its image to its result.

use std::time::Duration;

use bytes::Bytes;
use sandhog_core::blob::Blob;
use sandhog_core::infer::Call;
use sandhog_core::job::CheckedJob;
use sandhog_core::limits::Limits;
use sandhog_core::outcome::{Exception, JobResult, Outcome, Tokens, Truncated, Usage};
use sandhog_core::units::{ByteCount, Millis};
use sandhog_queue::LogStream;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::admitted_call::AdmittedCall;
use super::dynamic_batcher::{CallEvent, PendingCall};
use super::model::Model;
use super::models::Models;
use super::supervisor::ModelCommand;
use crate::attempt::{Attempt, Execution, ExecutorError, OutputLog};
use crate::sandbox::Image;

impl Models {
    /// Lets the model of `image` answer `job`.
    ///
    /// The attempt keeps its slot until the model accepts the job; after that it waits without a
    /// slot.
    ///
    /// # Errors
    /// If the image does not serve the request of the job, its model cannot be loaded, or its
    /// server died.
    pub(crate) async fn infer(
        &self,
        image: &Image,
        job: &CheckedJob,
        attempt: Attempt,
    ) -> Result<Execution, ExecutorError> {
        let AdmittedCall {
            call,
            input,
            limits,
            serving,
        } = self.admit(image, job)?;
        let model = self.model(image, serving, false);
        let ended = ask_model(&model, job, (call, input), &limits, attempt).await;
        ended.map(|mut execution| {
            let result = &mut execution.result;
            result.image = Some(job.image.clone());
            result.image_digest = Some(image.digest.to_string());
            result.runtime = Some(self.shared.sandboxes.shape(image).runtime.to_string());
            execution
        })
    }
}

/// Sends the request to the model's supervisor and waits for the answer.
async fn ask_model(
    model: &Model,
    job: &CheckedJob,
    (call, input): (Call, Value),
    limits: &Limits,
    attempt: Attempt,
) -> Result<Execution, ExecutorError> {
    let Attempt {
        id,
        number,
        interrupted,
        output,
        slot,
        occupancy,
        ..
    } = attempt;
    let cancelled = |id| Execution {
        result: JobResult::bare(id, Outcome::Cancelled),
        stopped_by_us: true,
    };
    let place = interrupted
        .token()
        .run_until_cancelled(model.call_permits.acquire())
        .await;
    let Some(place) = place else {
        return Ok(cancelled(id));
    };
    let _place = place.expect("the semaphore of a model is never closed");
    slot.release(occupancy);

    let timeout = limits.timeout_ms.duration();
    let (sender, mut events) = mpsc::unbounded_channel();
    let pending = PendingCall {
        call,
        size: input.to_string().len(),
        input,
        stream: job.stream,
        exclusive: number > 1 || job.stream,
        timeout,
        chunk_bytes_left: usize::try_from(limits.output.0).unwrap_or(usize::MAX),
        arrived: Instant::now(),
        events: sender,
    };
    let gone = || ExecutorError::Fault {
        message: "the model's supervisor has ended".to_owned(),
    };
    if model
        .commands
        .send(ModelCommand::Call(Box::new(pending)))
        .is_err()
    {
        return Err(gone());
    }
    let mut answer = PartialResult::new(output);
    let ended = loop {
        tokio::select! {
            biased;
            () = interrupted.token().cancelled() => break Ok(None),
            () = answer.overdue(timeout) => break Ok(Some(Outcome::TimedOut)),
            event = events.recv() => match event {
                Some(CallEvent::Started) => answer.started = Some(Instant::now()),
                Some(CallEvent::Chunk(text)) => answer.keep(text).await,
                Some(CallEvent::Truncated) => answer.truncated = true,
                Some(CallEvent::Answer(Ok(value))) => {
                    answer.value = Some(value);
                    break Ok(Some(Outcome::Succeeded));
                }
                Some(CallEvent::Answer(Err(exception))) => {
                    answer.exception = Some(exception);
                    break Ok(Some(Outcome::Failed));
                }
                Some(CallEvent::Lost(message)) => break Err(ExecutorError::Fault { message }),
                Some(CallEvent::Hopeless(error)) => break Err(ExecutorError::Hopeless(error)),
                None => break Err(gone()),
            },
        }
    };
    drop(events);
    // A call whose jobs have all ended is cancelled early if possible. If the supervisor has ended,
    // there is no call.
    drop(model.commands.send(ModelCommand::CallAbandoned));
    let result = answer.result(id.clone()).await;
    match ended? {
        None => Ok(Execution {
            result: JobResult {
                outcome: Outcome::Cancelled,
                ..result
            },
            stopped_by_us: true,
        }),
        Some(outcome) => Ok(Execution {
            result: JobResult { outcome, ..result },
            stopped_by_us: false,
        }),
    }
}

/// State of one job's answer so far.
struct PartialResult {
    output: OutputLog,
    started: Option<Instant>,
    /// Time at which the first part arrived.
    first: Option<Instant>,
    kept: Vec<u8>,
    truncated: bool,
    value: Option<Value>,
    exception: Option<Exception>,
}

impl PartialResult {
    fn new(output: OutputLog) -> Self {
        Self {
            output,
            started: None,
            first: None,
            kept: Vec::new(),
            truncated: false,
            value: None,
            exception: None,
        }
    }

    /// Waits until the answer has taken too long. The time until the model is loaded and the call
    /// begins does not count.
    async fn overdue(&self, timeout: Duration) {
        match self.started {
            Some(started) => tokio::time::sleep_until(started + timeout).await,
            None => std::future::pending().await,
        }
    }

    async fn keep(&mut self, text: String) {
        if text.is_empty() {
            return;
        }
        self.first.get_or_insert_with(Instant::now);
        let data = Bytes::from(text);
        self.kept.extend_from_slice(&data);
        self.output.write(LogStream::Stdout, data).await;
    }

    async fn result(self, id: sandhog_core::id::JobId) -> JobResult {
        self.output.finish().await;
        let tokens = self.value.as_ref().and_then(Tokens::of);
        JobResult {
            value: self.value,
            exception: self.exception,
            truncated: Truncated {
                stdout: self.truncated,
                stderr: false,
            },
            usage: self.started.map(|started| Usage {
                wall_ms: Millis::from(started.elapsed()),
                stdout_bytes: ByteCount(self.kept.len() as u64),
                first_token_ms: self
                    .first
                    .map(|first| Millis::from(first.saturating_duration_since(started))),
                tokens,
                ..Usage::default()
            }),
            stdout: Blob(self.kept),
            ..JobResult::bare(id, Outcome::Cancelled)
        }
    }
}
