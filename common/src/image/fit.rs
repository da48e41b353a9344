//! What a job is in its image: the command it becomes, or why it does not fit.

use super::{ImageContract, LanguageSpec};
use crate::id::{ImageName, clip};
use crate::infer::{self, InferError};
use crate::job::{Job, JobError, Program};
use crate::limits::{LimitError, LimitWishes, Limits};

/// Why a job does not fit its image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FitError {
    /// The job cannot be meant at all.
    #[error(transparent)]
    Job(#[from] JobError),
    /// The job asks something of a model that this image cannot answer.
    #[error(transparent)]
    Infer(#[from] InferError),
    /// The image does not run that language.
    #[error("image {image} does not run language {language:?} (it runs {known})")]
    UnknownLanguage {
        /// The image.
        image: ImageName,
        /// The language the job names.
        language: String,
        /// Those it runs.
        known: String,
    },
    /// The image runs no code at all.
    #[error("image {image} runs no code: it serves a model")]
    NoLanguage {
        /// The image.
        image: ImageName,
    },
    /// The job brings a file where its own source goes.
    #[error("file {file:?} is where the source of this language goes")]
    FileTaken {
        /// The file's name.
        file: String,
    },
    /// A cap that cannot be granted.
    #[error(transparent)]
    Limits(#[from] LimitError),
}

impl FitError {
    /// The stable word for this error in a result.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Job(_) | Self::FileTaken { .. } => "bad_job",
            Self::Infer(error) => error.code(),
            Self::UnknownLanguage { .. } | Self::NoLanguage { .. } => "unknown_language",
            Self::Limits(_) => "bad_limits",
        }
    }
}

/// A job's program as this image runs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invocation<'a> {
    /// Run these words.
    Argv(&'a [String]),
    /// Hand the source to a harness.
    Harness {
        /// The harness's command.
        argv: &'a [String],
        /// The source text.
        source: &'a str,
    },
    /// Put the source in a file, then run these words and the job's arguments.
    File {
        /// The file's name in the working directory.
        file: &'a str,
        /// The command.
        argv: &'a [String],
        /// The source text.
        source: &'a str,
    },
    /// Put the source in a file, compile it in one cell, and run what came of it in another.
    Compiled {
        /// The file's name in the working directory.
        file: &'a str,
        /// The source text.
        source: &'a str,
        /// The compiler's command.
        compile: &'a [String],
        /// Patterns of what it leaves for the program.
        keep: &'a [String],
        /// The compiler's caps.
        limits: &'a LimitWishes,
        /// The program's command.
        run: &'a [String],
    },
}

impl ImageContract {
    /// How this image runs `job`.
    ///
    /// # Errors
    /// When the job names a language the image does not run, or cannot be meant at all.
    pub fn invocation<'a>(&'a self, job: &'a Job) -> Result<Invocation<'a>, FitError> {
        match job.program()? {
            Program::Argv(argv) => Ok(Invocation::Argv(argv)),
            Program::Code { source, language } => {
                let language = language.unwrap_or(&self.language);
                match self.languages.get(language) {
                    None if self.languages.is_empty() => Err(FitError::NoLanguage {
                        image: self.name.clone(),
                    }),
                    None => Err(FitError::UnknownLanguage {
                        image: self.name.clone(),
                        language: clip(language, 80),
                        known: self
                            .languages
                            .keys()
                            .map(String::as_str)
                            .collect::<Vec<_>>()
                            .join(", "),
                    }),
                    Some(LanguageSpec::Harness { argv, .. }) => {
                        Ok(Invocation::Harness { argv, source })
                    }
                    Some(LanguageSpec::File { file, .. } | LanguageSpec::Compiled { file, .. })
                        if job.files.contains_key(file) =>
                    {
                        Err(FitError::FileTaken { file: file.clone() })
                    }
                    Some(LanguageSpec::File { file, argv }) => {
                        Ok(Invocation::File { file, argv, source })
                    }
                    Some(LanguageSpec::Compiled {
                        file,
                        compile,
                        keep,
                        run,
                        limits,
                    }) => Ok(Invocation::Compiled {
                        file,
                        source,
                        compile,
                        keep,
                        limits,
                        run,
                    }),
                }
            }
        }
    }

    /// What `job` calls of this image's model.
    ///
    /// # Errors
    /// When the image serves none, or the job cannot be meant.
    pub fn call(&self, job: &Job) -> Result<infer::Call, InferError> {
        let serving = self.serve.as_ref();
        let serving = serving.ok_or_else(|| InferError::ServesNothing {
            image: self.name.clone(),
        })?;
        serving.call(&self.name, job)
    }

    /// The caps `job` runs under in this image.
    ///
    /// # Errors
    /// When it asks for a cap that cannot be granted.
    pub fn limits(&self, job: &Job) -> Result<Limits, FitError> {
        Ok(Limits::resolve(&job.limits, &self.limits, &self.ceiling)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_language_the_image_lacks_is_named() {
        let contract = ImageContract::from_toml(
            r#"
                contract = 1
                name = "python"
                summary = "Python"
                language = "python"
                [languages.python]
                style = "harness"
                argv = ["/usr/bin/python3", "/usr/lib/sandhog/harness.py"]
                [languages.bash]
                style = "file"
                file = "main.sh"
                argv = ["/bin/bash", "main.sh"]
            "#,
        )
        .unwrap();
        let mut job = Job::code("python".parse().unwrap(), "1");
        assert!(matches!(
            contract.invocation(&job),
            Ok(Invocation::Harness { .. })
        ));
        job.language = Some("cobol".into());
        assert_eq!(
            contract.invocation(&job).unwrap_err().to_string(),
            "image python does not run language \"cobol\" (it runs bash, python)"
        );
    }
}
