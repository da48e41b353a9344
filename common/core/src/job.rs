//! A job's payload: the program or model call, its image and its caps.
//!
//! Routing, such as the class and the start time, is in the stream fields beside the payload
//! ([`crate::submission`]). Unknown fields are ignored, so that an old worker can read the job of a
//! newer producer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::blob::Blob;
use crate::files::{self, FileError};
use crate::gpu::{GpuNeed, GpuNeedError};
use crate::id::{ImageName, RuntimeName, SecretName, clip};
use crate::infer::{self, CallTarget, InferError};
use crate::limits::{LimitOverrides, Limits};
use crate::size::Size;

/// Maximum number of secrets of one job.
const SECRETS_MAX: usize = 16;

/// One request to run something in a sandbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// The kind of work.
    #[serde(default)]
    pub kind: Kind,
    /// The image it runs in.
    pub image: ImageName,
    /// The container runtime, where jobs may choose one. Default: the image's own, else the
    /// worker's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<RuntimeName>,
    /// Source text to run in `language`. Exactly one of `code` and `argv` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The language of `code`. Default: the image's default language.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// The name of the source file in the working directory. Default: the language's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// A program and its arguments, run without a shell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub argv: Option<Vec<String>>,
    /// Arguments for `code`: `sys.argv[1:]` in Python, `$1…` in bash.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Standard input of the program.
    #[serde(default, skip_serializing_if = "Blob::is_empty")]
    pub stdin: Blob,
    /// Environment variables, in addition to a minimal fixed set.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Secrets that the worker gives the program as environment variables of the same names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretName>,
    /// Input data of any shape. Python code finds it as `input_data`.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub input: Value,
    /// If set, the job succeeds only with a value: code that ends well without one, or exits before
    /// its end, has failed.
    #[serde(default, skip_serializing_if = "is_default")]
    pub expect_value: bool,
    /// The method of the image's model that an `infer` job calls. Default: the image's default
    /// method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The path of the image's HTTP server that an `infer` job calls. Default: the image's default
    /// path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// If set, the answer of an `infer` job is appended to its log piece by piece while the model
    /// produces it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub stream: bool,
    /// Files that are written to the working directory before the program starts, by their paths
    /// there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, Blob>,
    /// Patterns of files in the working directory that the result returns after the program has
    /// ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fetch: Vec<String>,
    /// The images whose models an `exec` job's program may call while it runs. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub infer: Vec<ImageName>,
    /// The GPUs that the job needs. Its class must have the tag `gpu` too. Default: the image's own
    /// need.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<GpuNeed>,
    /// Caps that differ from the image's defaults.
    #[serde(default, skip_serializing_if = "is_default")]
    pub limits: LimitOverrides,
}

/// The kinds of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Run a program until it ends.
    #[default]
    Exec,
    /// Call the image's model with one input.
    Infer,
}

/// The program of an `exec` job: exactly one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program<'a> {
    /// Source text.
    Code {
        /// The text.
        source: &'a str,
        /// Its language, if the job names one.
        language: Option<&'a str>,
    },
    /// A program and its arguments.
    Argv(&'a [String]),
}

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

impl Job {
    /// Returns a job that runs `code` in `image`, with defaults for everything else.
    #[must_use]
    pub fn code(image: ImageName, code: impl Into<String>) -> Self {
        Self {
            kind: Kind::Exec,
            image,
            runtime: None,
            code: Some(code.into()),
            language: None,
            file: None,
            argv: None,
            args: Vec::new(),
            stdin: Blob::default(),
            env: BTreeMap::new(),
            secrets: Vec::new(),
            input: Value::Null,
            expect_value: false,
            method: None,
            path: None,
            stream: false,
            files: BTreeMap::new(),
            fetch: Vec::new(),
            infer: Vec::new(),
            gpu: None,
            limits: LimitOverrides::default(),
        }
    }

    /// Returns a job that calls the model of `image` with `input`, with defaults for everything
    /// else.
    #[must_use]
    pub fn infer(image: ImageName, input: Value) -> Self {
        Self {
            kind: Kind::Infer,
            code: None,
            input,
            ..Self::code(image, "")
        }
    }

    /// Checks everything about the job that does not depend on its image.
    ///
    /// # Errors
    /// Names the first fault.
    pub fn check(&self) -> Result<(), JobError> {
        check_infer_fields(self)?;
        self.gpu.as_ref().map_or(Ok(()), GpuNeed::check)?;
        match self.kind {
            Kind::Exec => self.program().map(|_program| ()),
            Kind::Infer => Ok(()),
        }
    }

    /// Checks everything about the job that does not depend on its image, and returns the program.
    ///
    /// # Errors
    /// Names the first fault.
    pub fn program(&self) -> Result<Program<'_>, JobError> {
        for (field, texts) in [
            ("argv", self.argv.as_deref().unwrap_or_default()),
            ("args", &self.args),
        ] {
            if texts.iter().any(|text| text.contains('\0')) {
                return Err(JobError::Nul { field });
            }
        }
        check_env(&self.env)?;
        self.check_secrets()?;
        files::check_names(&self.files)?;
        self.file
            .as_deref()
            .map_or(Ok(()), files::check_source_name)?;
        files::check_patterns(&self.fetch)?;
        match (&self.code, &self.argv) {
            (None, None) => Err(JobError::NothingToRun),
            (Some(_), Some(_)) => Err(JobError::TwoPrograms),
            (Some(source), None) => Ok(Program::Code {
                source,
                language: self.language.as_deref(),
            }),
            (None, Some(argv)) => {
                if let Some(language) = &self.language {
                    return Err(JobError::LanguageWithArgv {
                        language: clip(language, 80),
                    });
                }
                if let Some(file) = &self.file {
                    return Err(JobError::FileOfArgv {
                        file: clip(file, 80),
                    });
                }
                if self.expect_value {
                    return Err(JobError::ValueOfArgv);
                }
                if argv.first().is_none_or(String::is_empty) {
                    return Err(JobError::EmptyArgv);
                }
                Ok(Program::Argv(argv))
            }
        }
    }

    /// Returns the size from the job's own limits, before its image is known. A request above the
    /// global ceiling gets the default size, and the worker that claims the job rejects it.
    #[must_use]
    pub fn size(&self) -> Size {
        let memory = self.limits.memory.unwrap_or(Limits::DEFAULT.memory);
        let cpu = self.limits.cpu_millis.unwrap_or(Limits::DEFAULT.cpu_millis);
        let granted = memory <= Limits::CEILING.memory && cpu <= Limits::CEILING.cpu_millis;
        match self.kind {
            Kind::Exec if granted => Size::of(memory, cpu),
            Kind::Exec | Kind::Infer => Size::DEFAULT,
        }
    }

    /// Returns the size of the job under the limits that its image grants. A job that names neither
    /// memory nor CPU has the default size unless its image gives it more than that.
    #[must_use]
    pub fn size_under(&self, limits: &Limits) -> Size {
        let size = Size::of(limits.memory, limits.cpu_millis);
        let named = self.limits.memory.is_some() || self.limits.cpu_millis.is_some();
        match self.kind {
            Kind::Exec if named || !Size::DEFAULT.covers(size) => size,
            Kind::Exec | Kind::Infer => Size::DEFAULT,
        }
    }

    /// Returns the part of the job that names what it calls, for a job of kind `infer`.
    #[must_use]
    pub fn call_target(&self) -> CallTarget<'_> {
        CallTarget {
            method: self.method.as_deref(),
            path: self.path.as_deref(),
            input: &self.input,
        }
    }
}

impl Job {
    fn check_secrets(&self) -> Result<(), JobError> {
        let count = self.secrets.len();
        if count > SECRETS_MAX {
            return Err(JobError::TooManySecrets { count });
        }
        let twice = self.secrets.iter().enumerate().find(|(at, name)| {
            let before = self.secrets.get(..*at).unwrap_or_default();
            before.contains(name) || self.env.contains_key(name.as_str())
        });
        if let Some((_, name)) = twice {
            return Err(JobError::SecretTwice { name: name.clone() });
        }
        let digit = |name: &&SecretName| name.as_str().starts_with(|c: char| c.is_ascii_digit());
        match self.secrets.iter().find(digit) {
            Some(name) => Err(JobError::EnvName {
                name: name.to_string(),
            }),
            None => Ok(()),
        }
    }
}

/// Checks that `job` has only fields of its own kind, and that the method and the path it calls are
/// well formed.
pub(crate) fn check_infer_fields(job: &Job) -> Result<(), InferError> {
    check_fields_of_kind(job)?;
    if job.infer.len() > infer::INFER_IMAGES_MAX {
        return Err(InferError::TooManyImages {
            count: job.infer.len(),
        });
    }
    job.method.as_deref().map_or(Ok(()), infer::check_method)?;
    job.path.as_deref().map_or(Ok(()), infer::check_path)
}

fn check_fields_of_kind(job: &Job) -> Result<(), InferError> {
    let (kind, fields) = match job.kind {
        Kind::Infer => (
            "exec",
            vec![
                ("code", job.code.is_some()),
                ("argv", job.argv.is_some()),
                ("language", job.language.is_some()),
                ("args", !job.args.is_empty()),
                ("env", !job.env.is_empty()),
                ("secrets", !job.secrets.is_empty()),
                ("stdin", !job.stdin.is_empty()),
                ("runtime", job.runtime.is_some()),
                ("file", job.file.is_some()),
                ("expect_value", job.expect_value),
                ("infer", !job.infer.is_empty()),
                ("gpu", job.gpu.is_some()),
            ],
        ),
        Kind::Exec => (
            "infer",
            vec![
                ("method", job.method.is_some()),
                ("path", job.path.is_some()),
                ("stream", job.stream),
            ],
        ),
    };
    match fields.into_iter().find(|(_, given)| *given) {
        None => Ok(()),
        Some((field, _)) => Err(InferError::WrongKind { field, kind }),
    }
}

/// Checks that a program can be started with these variables.
pub(crate) fn check_env(env: &BTreeMap<String, String>) -> Result<(), JobError> {
    for (name, value) in env {
        let valid = !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !valid {
            return Err(JobError::EnvName {
                name: clip(name, 80),
            });
        }
        if value.contains('\0') {
            return Err(JobError::Nul { field: "env" });
        }
    }
    Ok(())
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::ByteCount;

    fn parse(json: &str) -> Job {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_job_runs_exactly_one_thing() {
        let code = parse(r#"{"image":"python","code":"print(1)"}"#);
        assert_eq!(
            code.program(),
            Ok(Program::Code {
                source: "print(1)",
                language: None
            })
        );
        let argv = parse(r#"{"image":"python","argv":["ls","-l"]}"#);
        assert!(matches!(argv.program(), Ok(Program::Argv(_))));
        for (case, json, want) in [
            ("neither", r#"{"image":"p"}"#, JobError::NothingToRun),
            (
                "both",
                r#"{"image":"p","code":"","argv":["a"]}"#,
                JobError::TwoPrograms,
            ),
            (
                "empty argv",
                r#"{"image":"p","argv":[]}"#,
                JobError::EmptyArgv,
            ),
            (
                "nul",
                r#"{"image":"p","argv":["a","b\u0000"]}"#,
                JobError::Nul { field: "argv" },
            ),
            (
                "a file's name with argv",
                r#"{"image":"p","argv":["a"],"file":"b"}"#,
                JobError::FileOfArgv { file: "b".into() },
            ),
            (
                "a file's name with a folder",
                r#"{"image":"p","code":"","file":"a/b.py"}"#,
                JobError::File(FileError::SourceName {
                    name: "a/b.py".into(),
                    why: "it names a folder",
                }),
            ),
            (
                "env name",
                r#"{"image":"p","code":"","env":{"A=B":""}}"#,
                JobError::EnvName { name: "A=B".into() },
            ),
            (
                "secret twice",
                r#"{"image":"p","code":"","secrets":["A","A"]}"#,
                JobError::SecretTwice {
                    name: "A".parse().unwrap(),
                },
            ),
            (
                "secret and variable",
                r#"{"image":"p","code":"","secrets":["A"],"env":{"A":""}}"#,
                JobError::SecretTwice {
                    name: "A".parse().unwrap(),
                },
            ),
            (
                "secret that is no variable",
                r#"{"image":"p","code":"","secrets":["1A"]}"#,
                JobError::EnvName { name: "1A".into() },
            ),
        ] {
            assert_eq!(parse(json).program(), Err(want), "case {case}");
        }
    }

    #[test]
    fn a_job_that_names_nothing_is_ordinary() {
        let job = |limits: &str| -> Job {
            serde_json::from_str(&format!(
                r#"{{"image":"python","code":"1","limits":{limits}}}"#
            ))
            .unwrap()
        };
        for (case, limits, want) in [
            ("nothing", "{}", "m512c1000"),
            ("something else", r#"{"timeout_ms":5}"#, "m512c1000"),
            ("less memory", r#"{"memory":"64MiB"}"#, "m64c1000"),
            (
                "more of both",
                r#"{"memory":"3GiB","cpu_millis":2500}"#,
                "m3072c2500",
            ),
            (
                "more than is ever granted",
                r#"{"memory":"99000GiB"}"#,
                "m512c1000",
            ),
        ] {
            assert_eq!(job(limits).size().to_string(), want, "case {case}");
        }
        let small = Limits {
            memory: ByteCount::mib(256),
            ..Limits::DEFAULT
        };
        let large = Limits {
            memory: ByteCount::mib(1024),
            ..Limits::DEFAULT
        };
        let unnamed = job("{}");
        assert_eq!(
            unnamed.size_under(&small),
            Size::DEFAULT,
            "an image that gives less"
        );
        assert_eq!(unnamed.size_under(&large).to_string(), "m1024c1000");
        let named = job(r#"{"memory":"256MiB"}"#);
        assert_eq!(named.size_under(&small).to_string(), "m256c1000");
    }
}
