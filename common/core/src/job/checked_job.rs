//! A job that passed its check, and the rules of that check.

use std::collections::BTreeMap;
use std::ops::Deref;

use serde::Serialize;

use super::error::{JobError, SECRETS_MAX};
use super::job::{Job, Kind};
use crate::files;
use crate::gpu::GpuNeed;
use crate::id::{SecretName, clip};
use crate::infer::{self, InferError};

/// A job that is valid, apart from the rules that depend on its image.
///
/// Only [`Job::check`] returns one, so a function that takes a `CheckedJob` relies on the rules of
/// that check and does not repeat them:
///
/// ```
/// use sandhog_core::job::{CheckedJob, Job};
///
/// fn run(job: &CheckedJob) {
///     println!("a job for image {}", job.image);
/// }
///
/// let job = Job::code("python".parse().unwrap(), "print(1)");
/// run(&job.check().unwrap());
/// ```
///
/// There is no other way to make one, from a job or from a payload:
///
/// ```compile_fail
/// use sandhog_core::job::{CheckedJob, Job};
///
/// let job = Job::code("python".parse().unwrap(), "print(1)");
/// let job = CheckedJob(job);
/// ```
///
/// ```compile_fail
/// use sandhog_core::job::CheckedJob;
///
/// let job: CheckedJob = serde_json::from_str("{}").unwrap();
/// ```
///
/// Its fields cannot be changed. To change one, clone the [`Job`] and check the copy:
///
/// ```compile_fail
/// use sandhog_core::job::Job;
///
/// let mut job = Job::code("python".parse().unwrap(), "print(1)").check().unwrap();
/// job.code = None;
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct CheckedJob(Job);

impl Deref for CheckedJob {
    type Target = Job;

    fn deref(&self) -> &Job {
        &self.0
    }
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

impl CheckedJob {
    /// Returns the program of an `exec` job; `None` for an `infer` job.
    #[must_use]
    pub fn program(&self) -> Option<Program<'_>> {
        match (&self.0.code, &self.0.argv) {
            (Some(source), _) => Some(Program::Code {
                source,
                language: self.0.language.as_deref(),
            }),
            (None, Some(argv)) => Some(Program::Argv(argv)),
            (None, None) => None,
        }
    }
}

impl Job {
    /// Checks everything about the job that does not depend on its image.
    ///
    /// # Errors
    /// Names the first fault.
    pub fn check(self) -> Result<CheckedJob, JobError> {
        check_infer_fields(&self)?;
        self.gpu.as_ref().map_or(Ok(()), GpuNeed::check)?;
        match self.kind {
            Kind::Exec => check_program(&self)?,
            Kind::Infer => {}
        }
        Ok(CheckedJob(self))
    }
}

/// Checks that the job has only fields of its own kind, and that the method and the path it calls
/// are well formed.
fn check_infer_fields(job: &Job) -> Result<(), InferError> {
    let (kind, fields) = job.fields_of_other_kind();
    if let Some((field, _)) = fields.into_iter().find(|(_, given)| *given) {
        return Err(InferError::WrongKind { field, kind });
    }
    if job.infer.len() > infer::INFER_IMAGES_MAX {
        return Err(InferError::TooManyImages {
            count: job.infer.len(),
        });
    }
    job.method.as_deref().map_or(Ok(()), infer::check_method)?;
    job.path.as_deref().map_or(Ok(()), infer::check_path)
}

/// Checks that the job has exactly one program, which can be started with its variables, secrets
/// and files.
fn check_program(job: &Job) -> Result<(), JobError> {
    for (field, texts) in [
        ("argv", job.argv.as_deref().unwrap_or_default()),
        ("args", &job.args),
    ] {
        if texts.iter().any(|text| text.contains('\0')) {
            return Err(JobError::Nul { field });
        }
    }
    check_env(&job.env)?;
    check_secrets(job)?;
    files::check_names(&job.files)?;
    job.file
        .as_deref()
        .map_or(Ok(()), files::check_source_name)?;
    files::check_patterns(&job.fetch)?;
    match (&job.code, &job.argv) {
        (None, None) => Err(JobError::NothingToRun),
        (Some(_), Some(_)) => Err(JobError::TwoPrograms),
        (Some(_), None) => Ok(()),
        (None, Some(argv)) => check_argv(job, argv),
    }
}

/// Checks a program that is started without source text, and that the job has no field that goes
/// with source text.
fn check_argv(job: &Job, argv: &[String]) -> Result<(), JobError> {
    if let Some(language) = &job.language {
        return Err(JobError::LanguageWithArgv {
            language: clip(language, 80),
        });
    }
    if let Some(file) = &job.file {
        return Err(JobError::FileOfArgv {
            file: clip(file, 80),
        });
    }
    if job.expect_value {
        return Err(JobError::ValueOfArgv);
    }
    if argv.first().is_none_or(String::is_empty) {
        return Err(JobError::EmptyArgv);
    }
    Ok(())
}

fn check_secrets(job: &Job) -> Result<(), JobError> {
    let count = job.secrets.len();
    if count > SECRETS_MAX {
        return Err(JobError::TooManySecrets { count });
    }
    let twice = job.secrets.iter().enumerate().find(|(at, name)| {
        let before = job.secrets.get(..*at).unwrap_or_default();
        before.contains(name) || job.env.contains_key(name.as_str())
    });
    if let Some((_, name)) = twice {
        return Err(JobError::SecretTwice { name: name.clone() });
    }
    let digit = |name: &&SecretName| name.as_str().starts_with(|c: char| c.is_ascii_digit());
    match job.secrets.iter().find(digit) {
        Some(name) => Err(JobError::EnvName {
            name: name.to_string(),
        }),
        None => Ok(()),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::FileError;
    use crate::wire::{self, Encoding};

    fn check(json: &str) -> Result<CheckedJob, JobError> {
        serde_json::from_str::<Job>(json).unwrap().check()
    }

    #[test]
    fn a_job_runs_exactly_one_thing() {
        let code = check(r#"{"image":"python","code":"print(1)"}"#).unwrap();
        assert_eq!(
            code.program(),
            Some(Program::Code {
                source: "print(1)",
                language: None
            })
        );
        let argv = check(r#"{"image":"python","argv":["ls","-l"]}"#).unwrap();
        assert!(matches!(argv.program(), Some(Program::Argv(_))));
        let infer = check(r#"{"kind":"infer","image":"embed","input":"a"}"#).unwrap();
        assert_eq!(infer.program(), None);
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
            assert_eq!(check(json), Err(want), "case {case}");
        }
    }

    #[test]
    fn a_checked_job_is_written_as_its_job() {
        let job = Job::code("python".parse().unwrap(), "1");
        let checked = job.clone().check().unwrap();
        for encoding in [Encoding::Json, Encoding::MessagePack] {
            assert_eq!(
                wire::encode(&checked, encoding),
                wire::encode(&job, encoding)
            );
        }
    }
}
