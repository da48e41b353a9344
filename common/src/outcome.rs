//! What came of a job: its one published result.
//!
//! What a program did wrong is an [`Outcome`], never an error of ours; what went wrong on our side is
//! [`Outcome::Lost`] or [`Outcome::Rejected`], never a program's failure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::blob::Blob;
use crate::display::Display;
use crate::id::{ImageName, JobId, WorkerId};
use crate::units::{ByteCount, Millis, UnixMillis};

/// How a job ended. On the wire: the name in snake case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The program ended by itself with exit code 0.
    Succeeded,
    /// The program ended by itself with another exit code, an exception or a signal.
    Failed,
    /// The wall clock ran out.
    TimedOut,
    /// The process tree used up its CPU time.
    CpuLimit,
    /// The process tree asked for more memory than its cap.
    OutOfMemory,
    /// The program failed after it was refused another process or thread.
    ProcessLimit,
    /// The program failed with its scratch space full.
    ScratchLimit,
    /// The program was stopped because it wrote more than its cap to its output streams.
    OutputLimit,
    /// Somebody asked for it to be cancelled.
    Cancelled,
    /// It was not started within its time to live.
    Expired,
    /// The job could not be accepted: malformed, unknown image, a cap out of range.
    Rejected,
    /// We could not run it: every attempt was lost to a fault of ours.
    Lost,
}

impl Outcome {
    /// Every outcome, for tables and metrics.
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

    /// The name on the wire.
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

    /// Whose doing it was.
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

/// Whose doing an outcome is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nobody's: it succeeded, or somebody chose that it should not run.
    Nobody,
    /// The program's.
    Program,
    /// The submitter's: the job made no sense.
    Submitter,
    /// Ours.
    Service,
}

/// The one result of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobResult {
    /// The job.
    pub id: JobId,
    /// How it ended.
    pub outcome: Outcome,
    /// The program's exit code, when it exited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The signal that ended the program, such as `SIGSEGV`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// The value that `main()` returned, or the last expression's, if it is plain data. Null is a
    /// value too.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "present"
    )]
    pub value: Option<Value>,
    /// Why the code has no value, although it came to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_dropped: Option<ValueDropped>,
    /// Whether the code came to its end, as the language's harness tells: not when it left early, as `sys.exit(0)`
    /// does, by an exception, or was stopped. Nothing for programs without a harness.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed: Option<bool>,
    /// Standard output, up to the cap.
    #[serde(default)]
    pub stdout: Blob,
    /// Standard error, up to the cap.
    #[serde(default)]
    pub stderr: Blob,
    /// Which of the streams lost bytes to the cap; left out when neither did.
    #[serde(default, skip_serializing_if = "Truncated::is_none")]
    pub truncated: Truncated,
    /// The files that `fetch` asked for, by their paths below the working directory.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, Blob>,
    /// Files that `fetch` asked for and that were not taken, with the reason; not more than are worth reading.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub not_fetched: BTreeMap<String, NotFetched>,
    /// What it showed, in order: figures, tables and whatever else has a rich form.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub displays: Vec<Display>,
    /// Displays that are not among them: above a cap, or no displays at all.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub displays_dropped: u64,
    /// In languages that are compiled: which of the two this result tells of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<Stage>,
    /// The exception that ended the program, in languages that have them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exception: Option<Exception>,
    /// Why the job was rejected or lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorInfo>,
    /// What the last attempt used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// Attempts begun, lost ones included.
    #[serde(default)]
    pub attempts: u32,
    /// The worker of the last attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerId>,
    /// The image the job named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageName>,
    /// The exact image that ran, as the engine's content digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<String>,
    /// The container runtime that ran it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// The GPUs it had, by the driver's names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<String>,
    /// Remarks on the payload: fields that it has and no job has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// When it ended, by the clock of whoever ended it.
    #[serde(default)]
    pub finished_at_ms: UnixMillis,
}

impl JobResult {
    /// A result with an outcome and nothing else said.
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

    /// A result that says why the job did not run.
    #[must_use]
    pub fn with_error(id: JobId, outcome: Outcome, error: ErrorInfo) -> Self {
        Self {
            error: Some(error),
            ..Self::bare(id, outcome)
        }
    }

    /// Whether the job was refused for what it met and not for what it is: another held its key, or its tenant had no
    /// place for it. Submitted again by the same id, it is looked at anew.
    #[must_use]
    pub fn was_turned_away(&self) -> bool {
        let code = self.error.as_ref().map(|error| error.code.as_str());
        self.outcome == Outcome::Rejected && matches!(code, Some("duplicate" | "backlog_full"))
    }
}

/// The steps of a job in a language that is compiled. On the wire: the name in snake case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The compiler: it did not succeed, and the program was never started.
    Compile,
    /// The program.
    Run,
}

/// Why a file that was asked for was not taken. On the wire: the name in snake case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NotFetched {
    /// It is larger than what was left of `fetch_bytes`.
    TooLarge,
    /// `fetch_files` were taken already.
    TooMany,
    /// It lies in more than 16 directories.
    TooDeep,
    /// The directory holds more names than are looked at.
    TooManySeen,
    /// It is a link, FIFO, socket or device.
    NotAFile,
    /// The program's own user may not read it.
    Unreadable,
    /// Its name is not text.
    Name,
}

/// Which output streams lost bytes to the cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Truncated {
    /// Standard output did.
    #[serde(default)]
    pub stdout: bool,
    /// Standard error did.
    #[serde(default)]
    pub stderr: bool,
}

impl Truncated {
    /// Whether nothing was lost.
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

/// An exception that left the program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exception {
    /// Its type's name, such as `AssertionError`.
    #[serde(rename = "type")]
    pub name: String,
    /// Its message.
    pub message: String,
    /// Where it came from, as the language prints it.
    pub traceback: String,
}

/// A value that was left out of the result, because it is not plain data or too much of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValueDropped {
    /// The name of its type, or of the part of it that is not plain data.
    #[serde(rename = "type")]
    pub kind: String,
    /// Why it was left out.
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

/// Reads a field that is there, be it null.
fn present<'de, D: serde::Deserializer<'de>>(reader: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(reader).map(Some)
}

/// Why a job was rejected or lost, for a program (`code`) and for a person (`message`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorInfo {
    /// A stable word, such as `bad_payload`, `unknown_image`, `bad_limits`.
    pub code: String,
    /// What is wrong, with the bad value.
    pub message: String,
}

impl ErrorInfo {
    /// An error of this code.
    #[must_use]
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
        }
    }
}

/// What an attempt used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// From the program's start to its end.
    pub wall_ms: Millis,
    /// CPU time of the whole process tree.
    pub cpu_ms: Millis,
    /// The most memory the process tree held at once, its scratch files included.
    pub memory_peak: ByteCount,
    /// Bytes written to standard output, kept or not.
    pub stdout_bytes: ByteCount,
    /// Bytes written to standard error, kept or not.
    pub stderr_bytes: ByteCount,
    /// For a stream: from the beginning of the model's call to its first piece.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_token_ms: Option<Millis>,
    /// Tokens, where the model's answer counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Tokens>,
    /// What a program asked of models, if it might ask any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub infer: Option<Asked>,
}

/// Tokens that a model took in and gave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tokens {
    /// Of the prompt.
    pub prompt: u64,
    /// Of the answer.
    pub completion: u64,
}

impl Tokens {
    /// What an answer in OpenAI's form says of itself; none where it says nothing.
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

/// What a program asked of models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Asked {
    /// Its questions, refused ones included.
    pub calls: u64,
    /// Those of them that were answered.
    pub answered: u64,
    /// The time the answers took, one after another, waiting for the model included.
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
                serde_json::json!({"usage": {"prompt_tokens": 4, "completion_tokens": 12, "total_tokens": 16}}),
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
