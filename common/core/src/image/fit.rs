//! Matches a job with its image: the command that runs, or the reason why the job does not fit.

use std::borrow::Cow;

use super::contract::ImageContract;
use super::language::LanguageSpec;
use crate::id::{ImageName, clip};
use crate::infer::{self, InferError, Serving};
use crate::job::{CheckedJob, JobError, Program};
use crate::limits::{LimitError, LimitOverrides, Limits};

/// The reason why a job does not fit its image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FitError {
    /// The job is invalid in every image.
    #[error(transparent)]
    Job(#[from] JobError),
    /// The job makes a model call that this image cannot answer.
    #[error(transparent)]
    Infer(#[from] InferError),
    /// The image does not run the job's language.
    #[error("image {image} does not run language {language:?} (it runs {known})")]
    UnknownLanguage {
        /// The image.
        image: ImageName,
        /// The language the job names.
        language: String,
        /// The languages that the image runs.
        known: String,
    },
    /// The image runs no code at all.
    #[error("image {image} runs no code: it serves a model")]
    NoLanguage {
        /// The image.
        image: ImageName,
    },
    /// The job brings a file with the name of its own source file.
    #[error("the job brings a file {file:?}, which is the name of its source file")]
    FileTaken {
        /// The file's name.
        file: String,
    },
    /// A cap that cannot be granted.
    #[error(transparent)]
    Limits(#[from] LimitError),
}

impl FitError {
    /// Returns the stable error code for results.
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

/// The commands by which an image runs a job's program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invocation<'a> {
    /// Run this command.
    Argv(&'a [String]),
    /// Pass the source to a harness.
    Harness {
        /// The harness's command.
        argv: &'a [String],
        /// The source text.
        source: &'a str,
        /// The name of the source file, if the job sets one; otherwise the harness chooses it.
        file: Option<&'a str>,
    },
    /// Write the source to a file, then run this command with the job's arguments.
    File {
        /// The file's name in the working directory.
        file: &'a str,
        /// The command.
        argv: Cow<'a, [String]>,
        /// The source text.
        source: &'a str,
    },
    /// Write the source to a file, compile it in one cell, and run the result in another.
    Compiled {
        /// The file's name in the working directory.
        file: &'a str,
        /// The source text.
        source: &'a str,
        /// The compiler's command.
        compile: Cow<'a, [String]>,
        /// Patterns of the files that the compiler produces for the program.
        keep: &'a [String],
        /// The compiler's caps.
        limits: &'a LimitOverrides,
        /// The program's command.
        run: &'a [String],
    },
}

/// Returns the invocation of source text in a language. A file name that the job sets replaces the
/// language's own, also in the words of a command.
fn fit<'a>(
    spec: &'a LanguageSpec,
    source: &'a str,
    job: &'a CheckedJob,
) -> Result<Invocation<'a>, FitError> {
    let named = job.file.as_deref();
    let free = |file: &'a str| match job.files.contains_key(file) {
        true => Err(FitError::FileTaken {
            file: file.to_owned(),
        }),
        false => Ok(file),
    };
    match spec {
        LanguageSpec::Harness { argv, .. } => Ok(Invocation::Harness {
            argv,
            source,
            file: named.map(free).transpose()?,
        }),
        LanguageSpec::File { file, argv } => {
            let name = named.unwrap_or(file);
            Ok(Invocation::File {
                file: free(name)?,
                argv: renamed(argv, file, name),
                source,
            })
        }
        LanguageSpec::Compiled {
            file,
            compile,
            keep,
            run,
            limits,
        } => {
            // A compiler chooses the language by the file's extension, so a name with another
            // extension is ignored.
            let name = named.filter(|name| ending(name) == ending(file));
            let name = name.unwrap_or(file);
            Ok(Invocation::Compiled {
                file: free(name)?,
                source,
                compile: renamed(compile, file, name),
                keep,
                limits,
                run,
            })
        }
    }
}

/// Returns the command with each word that equals `file` replaced by `name`.
fn renamed<'a>(argv: &'a [String], file: &str, name: &str) -> Cow<'a, [String]> {
    if file == name {
        return Cow::Borrowed(argv);
    }
    let word = |word: &String| {
        if word == file {
            name.to_owned()
        } else {
            word.clone()
        }
    };
    Cow::Owned(argv.iter().map(word).collect())
}

fn ending(name: &str) -> Option<&str> {
    name.rsplit_once('.').map(|(_stem, ending)| ending)
}

impl ImageContract {
    /// Returns the caps of a job that names none.
    ///
    /// # Errors
    /// Fails if a cap cannot be granted.
    pub fn default_limits(&self) -> Result<Limits, FitError> {
        let none = LimitOverrides::default();
        Ok(Limits::resolve(&none, &self.limits, &self.ceiling)?)
    }

    /// Returns the invocation of `job` in this image.
    ///
    /// # Errors
    /// Fails if the job is of kind `infer` or names a language that the image does not run.
    pub fn invocation<'a>(&'a self, job: &'a CheckedJob) -> Result<Invocation<'a>, FitError> {
        match job.program().ok_or(JobError::NothingToRun)? {
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
                    Some(spec) => fit(spec, source, job),
                }
            }
        }
    }

    /// Returns the configuration of this image's model server.
    ///
    /// # Errors
    /// Fails if the image serves no model.
    pub fn serving(&self) -> Result<&Serving, InferError> {
        let serving = self.serve.as_ref();
        serving.ok_or_else(|| InferError::ServesNothing {
            image: self.name.clone(),
        })
    }

    /// Returns the call that `job` makes to this image's model.
    ///
    /// # Errors
    /// Fails if the image serves no model, or its model does not offer the call.
    pub fn call(&self, job: &CheckedJob) -> Result<infer::Call, InferError> {
        self.serving()?.call(&self.name, job.call_target())
    }

    /// Returns the caps under which `job` runs in this image.
    ///
    /// # Errors
    /// Fails if the job requests a cap that cannot be granted.
    pub fn limits(&self, job: &CheckedJob) -> Result<Limits, FitError> {
        Ok(Limits::resolve(&job.limits, &self.limits, &self.ceiling)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Job;

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
            contract.invocation(&job.clone().check().unwrap()),
            Ok(Invocation::Harness { .. })
        ));
        job.language = Some("cobol".into());
        let job = job.check().unwrap();
        assert_eq!(
            contract.invocation(&job).unwrap_err().to_string(),
            "image python does not run language \"cobol\" (it runs bash, python)"
        );
    }

    #[test]
    fn the_source_is_put_under_the_name_that_the_job_has_for_it() {
        let contract = ImageContract::from_toml(
            r#"
                contract = 1
                name = "many"
                summary = "Many languages"
                language = "python"
                [languages.python]
                style = "harness"
                argv = ["/usr/bin/python3", "/usr/lib/sandhog/harness.py"]
                [languages.bash]
                style = "file"
                file = "main.sh"
                argv = ["/bin/bash", "main.sh"]
                [languages.cpp]
                style = "compiled"
                file = "main.cpp"
                compile = ["/usr/bin/g++", "-o", "main", "main.cpp"]
                keep = ["main"]
                run = ["./main"]
            "#,
        )
        .unwrap();
        let command = |language: &str, file: Option<&str>| {
            let job = Job {
                language: Some(language.to_owned()),
                file: file.map(str::to_owned),
                ..Job::code("many".parse().unwrap(), "1")
            };
            let job = job.check().unwrap();
            match contract.invocation(&job).unwrap() {
                Invocation::Harness { file, .. } => file.unwrap_or("none").to_owned(),
                Invocation::File { file, argv, .. } => format!("{file}: {}", argv.join(" ")),
                Invocation::Compiled { file, compile, .. } => {
                    format!("{file}: {}", compile.join(" "))
                }
                Invocation::Argv(_) => panic!("code is no argv"),
            }
        };
        for (language, file, want) in [
            ("python", None, "none"),
            ("python", Some("a.py"), "a.py"),
            ("bash", None, "main.sh: /bin/bash main.sh"),
            ("bash", Some("a.sh"), "a.sh: /bin/bash a.sh"),
            ("cpp", None, "main.cpp: /usr/bin/g++ -o main main.cpp"),
            ("cpp", Some("a.cpp"), "a.cpp: /usr/bin/g++ -o main a.cpp"),
            ("cpp", Some("a"), "main.cpp: /usr/bin/g++ -o main main.cpp"),
        ] {
            assert_eq!(command(language, file), want, "{language} {file:?}");
        }
        let mut job = Job::code("many".parse().unwrap(), "1");
        job.files = [("main.py".to_owned(), "2".into())].into();
        let unnamed = job.clone().check().unwrap();
        assert!(
            contract.invocation(&unnamed).is_ok(),
            "no name is asked for"
        );
        job.file = Some("main.py".to_owned());
        let job = job.check().unwrap();
        assert_eq!(
            contract.invocation(&job).unwrap_err().to_string(),
            "the job brings a file \"main.py\", which is the name of its source file"
        );
    }
}
