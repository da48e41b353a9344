//! Runs one job of kind `infer`, from its image to its result.

use std::time::Duration;

use bytes::Bytes;
use sandhog_common::blob::Blob;
use sandhog_common::image::FitError;
use sandhog_common::infer::{Call, InferError, Serving};
use sandhog_common::job::Job;
use sandhog_common::limits::Limits;
use sandhog_common::outcome::{ErrorInfo, Exception, JobResult, Outcome, Tokens, Truncated, Usage};
use sandhog_common::queue::LogStream;
use sandhog_common::units::{ByteCount, Millis};
use sandhog_runner::protocol;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::calls::{Ask, Tell};
use super::keeper::Mail;
use super::{Model, Models};
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
        job: &Job,
        attempt: Attempt,
    ) -> Result<Execution, ExecutorError> {
        let Admitted {
            call,
            input,
            limits,
            serving,
        } = self.admit(image, job)?;
        let model = self.model(image, serving, false);
        let ended = ask(&model, job, (call, input), &limits, attempt).await;
        ended.map(|mut execution| {
            let result = &mut execution.result;
            result.image = Some(job.image.clone());
            result.image_digest = Some(image.digest.to_string());
            result.runtime = Some(self.shared.engine.shape(image).runtime.to_string());
            execution
        })
    }

    /// Returns the call, the input and the limits with which `image` answers `job`. Every inference
    /// request, of a job or of a program, passes through this function.
    ///
    /// # Errors
    /// If the image does not serve the request of the job, or this worker serves no models.
    pub(super) fn admit<'a>(
        &self,
        image: &'a Image,
        job: &Job,
    ) -> Result<Admitted<'a>, ExecutorError> {
        let refuse = |error: InferError| reject(&error.into());
        let call = image.contract.call(job).map_err(refuse)?;
        let limits = image.contract.limits(job).map_err(|error| reject(&error))?;
        if limits.memory > self.shared.memory {
            return Err(ExecutorError::Rejected(ErrorInfo::new(
                "bad_limits",
                format!(
                    "image {} wants {} of memory, above the {} of one container here",
                    image.name, limits.memory, self.shared.memory
                ),
            )));
        }
        match &image.contract.serve {
            Some(serving) if self.shared.most > 0 => Ok(Admitted {
                call,
                input: serving
                    .input(&image.name, job.input.clone())
                    .map_err(refuse)?,
                limits,
                serving,
            }),
            Some(_) | None => Err(ExecutorError::Fault {
                message: "this worker serves no models (worker.models is 0)".to_owned(),
            }),
        }
    }
}

/// An inference request that an image can answer.
#[derive(Debug)]
pub(super) struct Admitted<'a> {
    pub(super) call: Call,
    /// The job's input after the image's contract was applied to it.
    pub(super) input: Value,
    pub(super) limits: Limits,
    pub(super) serving: &'a Serving,
}

/// Sends the request to the model's supervisor and waits for the answer.
async fn ask(
    model: &Model,
    job: &Job,
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
        place: seat,
        ..
    } = attempt;
    let cancelled = |id| Execution {
        result: JobResult::bare(id, Outcome::Cancelled),
        stopped_by_us: true,
    };
    let place = interrupted
        .token()
        .run_until_cancelled(model.places.acquire())
        .await;
    let Some(place) = place else {
        return Ok(cancelled(id));
    };
    let _place = place.expect("the semaphore of a model is never closed");
    slot.release(seat);

    let timeout = limits.timeout_ms.duration();
    let (tell, mut told) = mpsc::unbounded_channel();
    let ask = Ask {
        call,
        size: input.to_string().len(),
        input,
        stream: job.stream,
        alone: number > 1 || job.stream,
        timeout,
        room: usize::try_from(limits.output.0).unwrap_or(usize::MAX),
        arrived: Instant::now(),
        tell,
    };
    let gone = || ExecutorError::Fault {
        message: "the model's supervisor has ended".to_owned(),
    };
    if model.mail.send(Mail::Ask(Box::new(ask))).is_err() {
        return Err(gone());
    }
    let mut answer = Answering::new(output);
    let ended = loop {
        tokio::select! {
            biased;
            () = interrupted.token().cancelled() => break Ok(None),
            () = answer.overdue(timeout) => break Ok(Some(Outcome::TimedOut)),
            told = told.recv() => match told {
                Some(Tell::Started) => answer.started = Some(Instant::now()),
                Some(Tell::Piece(text)) => answer.keep(text).await,
                Some(Tell::Cut) => answer.cut = true,
                Some(Tell::Answer(Ok(value))) => {
                    answer.value = Some(value);
                    break Ok(Some(Outcome::Succeeded));
                }
                Some(Tell::Answer(Err(exception))) => {
                    answer.exception = Some(exception);
                    break Ok(Some(Outcome::Failed));
                }
                Some(Tell::Lost(message)) => break Err(ExecutorError::Fault { message }),
                Some(Tell::Hopeless(error)) => break Err(ExecutorError::Hopeless(error)),
                None => break Err(gone()),
            },
        }
    };
    drop(told);
    // A call whose jobs have all ended is cancelled early if possible. If the supervisor has ended,
    // there is no call.
    drop(model.mail.send(Mail::Gone));
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
struct Answering {
    output: OutputLog,
    started: Option<Instant>,
    /// Time at which the first part arrived.
    first: Option<Instant>,
    kept: Vec<u8>,
    cut: bool,
    value: Option<Value>,
    exception: Option<protocol::Exception>,
}

impl Answering {
    fn new(output: OutputLog) -> Self {
        Self {
            output,
            started: None,
            first: None,
            kept: Vec::new(),
            cut: false,
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

    async fn result(self, id: sandhog_common::id::JobId) -> JobResult {
        self.output.finish().await;
        let tokens = self.value.as_ref().and_then(Tokens::of);
        JobResult {
            value: self.value,
            exception: self.exception.map(|exception| Exception {
                name: exception.name,
                message: exception.message,
                traceback: exception.traceback,
            }),
            truncated: Truncated {
                stdout: self.cut,
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

fn reject(error: &FitError) -> ExecutorError {
    ExecutorError::Rejected(ErrorInfo::new(error.code(), error.to_string()))
}
