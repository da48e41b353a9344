//! The one published result of a job.
//!
//! A failure of the program is an [`Outcome`], never an error of ours. A failure on our side is
//! [`Outcome::Lost`], and a job that could not be accepted is [`Outcome::Rejected`]; neither is
//! reported as a failure of the program.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::blob::Blob;
use crate::display::Display;
use crate::id::{ImageName, JobId, WorkerId};
use crate::units::{ByteCount, Millis, UnixMillis};

/// The way in which a job ended. On the wire: the name in snake case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The program ended by itself with exit code 0.
    Succeeded,
    /// The program ended by itself with another exit code, an exception or a signal.
    Failed,
    /// The wall-clock time limit ran out.
    TimedOut,
    /// The process tree used up its CPU time.
    CpuLimit,
    /// The process tree needed more memory than its cap.
    OutOfMemory,
    /// The program failed after the kernel refused it another process or thread.
    ProcessLimit,
    /// The program failed with its scratch space full.
    ScratchLimit,
    /// The program was stopped because it wrote more than its cap to its output streams.
    OutputLimit,
    /// A client requested the cancellation of the job.
    Cancelled,
    /// The job was not started within its time to live.
    Expired,
    /// The job could not be accepted: malformed, unknown image, a cap out of range.
    Rejected,
    /// The service could not run the job: every attempt was lost to a fault of ours.
    Lost,
}

impl Outcome {
    /// All outcomes, for tables and metrics.
    pub const ALL: [Self; 12] = [
        Self::Succeeded,
        Self::Failed,
        Self::TimedOut,
        Self::CpuLimit,
        Self::OutOfMemory,
        Self::ProcessLimit,
        Self::ScratchLimit,
        Self::OutputLimit,
        Self::Cancelled,
        Self::Expired,
        Self::Rejected,
        Self::Lost,
    ];

    /// Returns the name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::CpuLimit => "cpu_limit",
            Self::OutOfMemory => "out_of_memory",
            Self::ProcessLimit => "process_limit",
            Self::ScratchLimit => "scratch_limit",
            Self::OutputLimit => "output_limit",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::Rejected => "rejected",
            Self::Lost => "lost",
        }
    }

    /// Returns the party that caused the outcome.
    #[must_use]
    pub const fn fault(self) -> Fault {
        match self {
            Self::Succeeded | Self::Cancelled | Self::Expired => Fault::Nobody,
            Self::Failed
            | Self::TimedOut
            | Self::CpuLimit
            | Self::OutOfMemory
            | Self::ProcessLimit
            | Self::ScratchLimit
            | Self::OutputLimit => Fault::Program,
            Self::Rejected => Fault::Submitter,
            Self::Lost => Fault::Service,
        }
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The party that caused an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// None: the job succeeded, was cancelled or expired.
    Nobody,
    /// The program.
    Program,
    /// The submitter: the job was invalid.
    Submitter,
    /// The service.
    Service,
}

/// The one result of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobResult {
    /// The job.
    pub id: JobId,
    /// The outcome.
    pub outcome: Outcome,
    /// The program's exit code, if it exited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The signal that ended the program, such as `SIGSEGV`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// The value that `main()` returned, or that of the last expression, if it is plain data. Null
    /// is a value too.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "present"
    )]
    pub value: Option<Value>,
    /// The reason why the value was dropped, if the code produced one that cannot be in a result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_dropped: Option<ValueDropped>,
    /// Set to true if the code ran to its end, as the language's harness reports it. False if it
    /// exited early, as with `sys.exit(0)`, raised an exception or was stopped. None for programs
    /// without a harness.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed: Option<bool>,
    /// Standard output, up to the cap.
    #[serde(default)]
    pub stdout: Blob,
    /// Standard error, up to the cap.
    #[serde(default)]
    pub stderr: Blob,
    /// The streams that lost bytes to the cap; left out if neither did.
    #[serde(default, skip_serializing_if = "Truncated::is_none")]
    pub truncated: Truncated,
    /// The files that `fetch` requested, by their paths below the working directory.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, Blob>,
    /// Files that `fetch` requested and that were not returned, with the reason. The number of
    /// entries is bounded.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub not_fetched: BTreeMap<String, NotFetched>,
    /// The displays of the program, in order: figures, tables and other data with a rich form.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub displays: Vec<Display>,
    /// Number of displays that were dropped: above a cap, or invalid.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub displays_dropped: u64,
    /// In compiled languages: the stage that this result describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<Stage>,
    /// The exception that ended the program, in languages that have them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exception: Option<Exception>,
    /// The reason why the job was rejected or lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorInfo>,
    /// Resource usage of the last attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// Number of attempts that were started, lost ones included.
    #[serde(default)]
    pub attempts: u32,
    /// The worker of the last attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerId>,
    /// The image that the job named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageName>,
    /// The exact image that ran, as the engine's content digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<String>,
    /// The container runtime that ran it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// The uuids of the GPUs that the job held.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<String>,
    /// Warnings about the payload: its unknown fields.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Time of the end, by the clock of the worker that settled the job, or by Redis' clock if a
    /// script ended it.
    #[serde(default)]
    pub finished_at_ms: UnixMillis,
}

impl JobResult {
    /// Returns a result with an outcome and no other data.
    #[must_use]
    pub fn bare(id: JobId, outcome: Outcome) -> Self {
        Self {
            id,
            outcome,
            exit_code: None,
            signal: None,
            value: None,
            value_dropped: None,
            completed: None,
            stdout: Blob::default(),
            stderr: Blob::default(),
            truncated: Truncated::default(),
            files: BTreeMap::new(),
            not_fetched: BTreeMap::new(),
            displays: Vec::new(),
            displays_dropped: 0,
            stage: None,
            exception: None,
            error: None,
            usage: None,
            attempts: 0,
            worker: None,
            image: None,
            image_digest: None,
            runtime: None,
            gpus: Vec::new(),
            warnings: Vec::new(),
            finished_at_ms: UnixMillis::default(),
        }
    }

    /// Returns a result with the reason why the job did not run.
    #[must_use]
    pub fn with_error(id: JobId, outcome: Outcome, error: ErrorInfo) -> Self {
        Self {
            error: Some(error),
            ..Self::bare(id, outcome)
        }
    }

    /// Returns whether the job was rejected because of the state of the queue and not because of
    /// its content: another job held its unique key, or its tenant's backlog was full. A new
    /// submission under the same id is then evaluated anew.
    #[must_use]
    pub fn is_resubmittable(&self) -> bool {
        let code = self.error.as_ref().map(|error| error.code.as_str());
        self.outcome == Outcome::Rejected && matches!(code, Some("duplicate" | "backlog_full"))
    }
}

/// The stages of a job in a compiled language. On the wire: the name in snake case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The compiler: it did not succeed, and the program was never started.
    Compile,
    /// The program.
    Run,
}

/// The reason why a requested file was not returned. On the wire: the name in snake case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NotFetched {
    /// It is larger than the remainder of `fetch_bytes`.
    TooLarge,
    /// The number of files has reached `fetch_files`.
    TooMany,
    /// It is below more than 16 directories.
    TooDeep,
    /// The directory contains more names than the runner reads.
    TooManySeen,
    /// It is a link, FIFO, socket or device.
    NotAFile,
    /// The program's own user may not read it.
    Unreadable,
    /// Its name is not valid UTF-8.
    Name,
}

/// The output streams that lost bytes to the cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Truncated {
    /// Set if standard output lost bytes.
    #[serde(default)]
    pub stdout: bool,
    /// Set if standard error lost bytes.
    #[serde(default)]
    pub stderr: bool,
}

impl Truncated {
    /// Returns whether neither stream lost bytes.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        !self.stdout && !self.stderr
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for a reference"
)]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// An uncaught exception of the program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exception {
    /// Its type's name, such as `AssertionError`.
    #[serde(rename = "type")]
    pub name: String,
    /// Its message.
    pub message: String,
    /// The stack trace, as the language prints it.
    pub traceback: String,
}

/// A value that was dropped from the result, because it is not plain data or too large.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValueDropped {
    /// The name of its type, or of the part of it that is not plain data.
    #[serde(rename = "type")]
    pub kind: String,
    /// The reason why it was dropped.
    pub reason: String,
}

impl std::fmt::Display for ValueDropped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "its value of type {} was dropped: {}",
            self.kind, self.reason
        )
    }
}

/// Deserializes a field that is present, so that an explicit null becomes `Some(Value::Null)`.
fn present<'de, D: serde::Deserializer<'de>>(reader: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(reader).map(Some)
}

/// The reason why a job was rejected or lost, for programs (`code`) and for people (`message`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorInfo {
    /// A stable error code, such as `bad_payload`, `unknown_image`, `bad_limits`.
    pub code: String,
    /// The fault, with the bad value.
    pub message: String,
}

impl ErrorInfo {
    /// Returns an error with this code and message.
    #[must_use]
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
        }
    }
}

/// Resource usage of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Wall-clock time from the program's start to its end.
    pub wall_ms: Millis,
    /// CPU time of the whole process tree.
    pub cpu_ms: Millis,
    /// Peak memory of the process tree, its scratch files included.
    pub memory_peak: ByteCount,
    /// Bytes written to standard output, kept or not.
    pub stdout_bytes: ByteCount,
    /// Bytes written to standard error, kept or not.
    pub stderr_bytes: ByteCount,
    /// For a stream: time from the start of the model call to the first piece of its answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_token_ms: Option<Millis>,
    /// Tokens, where the model's answer counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Tokens>,
    /// The program's calls to models, if its job allowed any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub infer: Option<InferUsage>,
}

/// Number of tokens that a model read and wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tokens {
    /// Tokens of the prompt.
    pub prompt: u64,
    /// Tokens of the answer.
    pub completion: u64,
}

impl Tokens {
    /// Returns the token counts of an answer in OpenAI's format; none if it has no counts.
    #[must_use]
    pub fn of(answer: &Value) -> Option<Self> {
        let usage = answer.get("usage")?;
        let count = |name: &str| usage.get(name).and_then(Value::as_u64);
        let (prompt, completion) = (count("prompt_tokens"), count("completion_tokens"));
        (prompt.is_some() || completion.is_some()).then(|| Self {
            prompt: prompt.unwrap_or(0),
            completion: completion.unwrap_or(0),
        })
    }
}

/// A program's calls to models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct InferUsage {
    /// Number of calls, rejected ones included.
    pub calls: u64,
    /// Number of calls that were answered.
    pub answered: u64,
    /// Sum of the durations of the answered calls, including their waits for the model.
    pub wall_ms: Millis,
    /// Tokens, where the answers count them.
    pub tokens: Tokens,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_what_an_answer_counts() {
        for (case, answer, want) in [
            ("no map", serde_json::json!([0.1]), None),
            ("no usage", serde_json::json!({"text": "a"}), None),
            (
                "usage of another kind",
                serde_json::json!({"usage": "none"}),
                None,
            ),
            (
                "both",
                serde_json::json!({
                    "usage": {"prompt_tokens": 4, "completion_tokens": 12, "total_tokens": 16},
                }),
                Some((4, 12)),
            ),
            (
                "a prompt alone, as of embeddings, and a hostile count",
                serde_json::json!({"usage": {"prompt_tokens": 4, "completion_tokens": -1}}),
                Some((4, 0)),
            ),
        ] {
            let want = want.map(|(prompt, completion)| Tokens { prompt, completion });
            assert_eq!(Tokens::of(&answer), want, "case {case}");
        }
    }
}
