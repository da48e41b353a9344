//! The faults of a job that parses but is invalid.

use crate::files::FileError;
use crate::gpu::GpuNeedError;
use crate::id::SecretName;
use crate::infer::InferError;

/// Maximum number of secrets of one job.
pub(super) const SECRETS_MAX: usize = 16;

/// A job that parses but is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// A fault of an `infer` job's call, or a field that only such a job may have.
    #[error(transparent)]
    Infer(#[from] InferError),
    /// An invalid number or memory of GPUs.
    #[error(transparent)]
    Gpu(#[from] GpuNeedError),
    /// The job has neither `code` nor `argv`.
    #[error("the job names nothing to run (want code, or argv)")]
    NothingToRun,
    /// The job has both `code` and `argv`.
    #[error("the job names both code and argv (want one of them)")]
    TwoPrograms,
    /// `argv` is an empty list, or its first element an empty string.
    #[error("argv names no program")]
    EmptyArgv,
    /// `language` is given with `argv`.
    #[error("language {language:?} goes with code, not with argv")]
    LanguageWithArgv {
        /// The language named.
        language: String,
    },
    /// `file` is given with `argv`.
    #[error("file {file:?} goes with code, not with argv")]
    FileOfArgv {
        /// The file named.
        file: String,
    },
    /// `expect_value` is given with `argv`, which yields no value.
    #[error("expect_value goes with code, not with argv")]
    ValueOfArgv,
    /// An environment variable has an invalid name.
    #[error(
        "environment variable name {name:?} is not valid (want A-Z a-z 0-9 _, not a digit first)"
    )]
    EnvName {
        /// The name.
        name: String,
    },
    /// The job names too many secrets.
    #[error("the job names {count} secrets (want at most {SECRETS_MAX})")]
    TooManySecrets {
        /// The number that it names.
        count: usize,
    },
    /// A secret is named twice, or has the name of an environment variable.
    #[error("{name} is named twice among secrets and environment variables")]
    SecretTwice {
        /// The name.
        name: SecretName,
    },
    /// An invalid file name or fetch pattern.
    #[error(transparent)]
    File(#[from] FileError),
    /// A text contains a NUL byte, which the kernel does not accept there.
    #[error("{field} holds a NUL byte")]
    Nul {
        /// The field.
        field: &'static str,
    },
}
