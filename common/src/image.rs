//! The image contract: what an image says of itself, in `image.toml` and in one label.
//!
//! The build stamps the contract on the image as the label [`CONTRACT_LABEL`], in JSON. Any image with that label and
//! the runner as its entry point works, however it was built.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::files::check_patterns;
use crate::id::{ImageName, RuntimeName, clip};
use crate::infer::{self, InferError, Serving};
use crate::job::{self, Job, JobError, Program};
use crate::limits::{LimitError, LimitWishes, Limits};

/// The label that holds an image's contract as JSON.
pub const CONTRACT_LABEL: &str = "sandhog.contract";

/// The contract's version that this code reads.
pub const CONTRACT_VERSION: u32 = 1;

/// What an image offers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageContract {
    /// The version of this format: 1.
    pub contract: u32,
    /// The image's short name, which jobs use.
    pub name: ImageName,
    /// One line for people.
    pub summary: String,
    /// The language of `code` when a job names none.
    pub language: String,
    /// How source text of each language is run.
    pub languages: BTreeMap<String, LanguageSpec>,
    /// Environment variables of every program, unless the job sets them otherwise. What the image's own `ENV` says
    /// does not reach a cell.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The container runtime it needs; the worker's own when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<RuntimeName>,
    /// Caps for jobs that name none.
    #[serde(default)]
    pub limits: LimitWishes,
    /// The most a job may ask for.
    #[serde(default)]
    pub ceiling: LimitWishes,
    /// How the image serves a model, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serve: Option<Serving>,
    /// A job that `sandhog images check` runs; it must succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<String>,
}

/// How source text of one language is run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "style", rename_all = "snake_case", deny_unknown_fields)]
pub enum LanguageSpec {
    /// A program that is handed source, arguments and input on descriptor 3, and answers there with a value or an
    /// exception. The harness's own path is an argument of it.
    Harness {
        /// The program and its arguments.
        argv: Vec<String>,
        /// What is kept warm of it, so that a program need not wait for it to start. At most one language of an image
        /// has one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        zygote: Option<ZygoteSpec>,
    },
    /// A program that reads the source from a file in the working directory; the job's arguments follow.
    File {
        /// The file's name, without directories.
        file: String,
        /// The program and its arguments.
        argv: Vec<String>,
    },
    /// A compiler that reads the source from a file in the working directory, in a cell of its own; what it leaves
    /// there is put into the working directory of a second cell, where the program runs.
    Compiled {
        /// The file's name, without directories.
        file: String,
        /// The compiler and its arguments.
        compile: Vec<String>,
        /// Patterns of the files that it leaves for the program.
        keep: Vec<String>,
        /// The program and its arguments; the job's follow. A path without a leading slash is one of the files kept.
        run: Vec<String>,
        /// The compiler's caps.
        #[serde(default)]
        limits: LimitWishes,
    },
}

/// A program that is started once in each container and cloned into every cell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ZygoteSpec {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// The modules it imports before it is cloned. Every program finds them imported.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub imports: Vec<String>,
}

/// A contract that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ContractError {
    /// The TOML or JSON does not fit.
    #[error("bad image contract: {detail}")]
    Syntax {
        /// What the parser said.
        detail: String,
    },
    /// Written for another version of the format.
    #[error("image contract version {found} is not known (want {CONTRACT_VERSION})")]
    Version {
        /// The version found.
        found: u32,
    },
    /// The default language is not among the languages.
    #[error("image {image} has default language {language:?}, which it does not define")]
    DefaultLanguage {
        /// The image.
        image: ImageName,
        /// The language.
        language: String,
    },
    /// A language's command is empty, or its file is not a plain name.
    #[error("image {image}, language {language:?}: {detail}")]
    Language {
        /// The image.
        image: ImageName,
        /// The language.
        language: String,
        /// What is wrong.
        detail: &'static str,
    },
    /// The `[serve]` table does not hold together.
    #[error("image {image} cannot serve its model")]
    Serving {
        /// The image.
        image: ImageName,
        /// Which key, and why.
        #[source]
        source: InferError,
    },
    /// A variable that no program can be started with.
    #[error("image {image} has an environment that cannot be used")]
    Environment {
        /// The image.
        image: ImageName,
        /// Which variable, and why.
        #[source]
        source: JobError,
    },
}

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
            Self::UnknownLanguage { .. } => "unknown_language",
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
    /// Reads `image.toml`.
    ///
    /// # Errors
    /// When it does not parse or does not hold together.
    pub fn from_toml(text: &str) -> Result<Self, ContractError> {
        let contract: Self = toml::from_str(text).map_err(|e| ContractError::Syntax {
            detail: clip(&e.to_string(), 400),
        })?;
        contract.checked()
    }

    /// Reads the label.
    ///
    /// # Errors
    /// When it does not parse or does not hold together.
    pub fn from_label(json: &str) -> Result<Self, ContractError> {
        let contract: Self = serde_json::from_str(json).map_err(|e| ContractError::Syntax {
            detail: clip(&e.to_string(), 400),
        })?;
        contract.checked()
    }

    /// The label's value.
    ///
    /// # Panics
    /// Never: a contract has string keys only.
    #[must_use]
    pub fn to_label(&self) -> String {
        serde_json::to_string(self).expect("a contract has string keys only")
    }

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

    /// The image's zygote and the command of the harness that it stands for, if it has one.
    #[must_use]
    pub fn zygote(&self) -> Option<(&ZygoteSpec, &[String])> {
        self.languages.values().find_map(|spec| match spec {
            LanguageSpec::Harness {
                argv,
                zygote: Some(zygote),
            } => Some((zygote, argv.as_slice())),
            LanguageSpec::Harness { zygote: None, .. }
            | LanguageSpec::File { .. }
            | LanguageSpec::Compiled { .. } => None,
        })
    }

    /// The caps of a job that names none.
    ///
    /// # Errors
    /// When the image's own defaults are above its ceiling.
    pub fn default_limits(&self) -> Result<Limits, FitError> {
        let none = LimitWishes::default();
        Ok(Limits::resolve(&none, &self.limits, &self.ceiling)?)
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

    fn checked(self) -> Result<Self, ContractError> {
        if self.contract != CONTRACT_VERSION {
            return Err(ContractError::Version {
                found: self.contract,
            });
        }
        if !self.languages.contains_key(&self.language) {
            return Err(ContractError::DefaultLanguage {
                image: self.name,
                language: self.language,
            });
        }
        if let Err(source) = job::check_env(&self.env) {
            return Err(ContractError::Environment {
                image: self.name,
                source,
            });
        }
        if let Some(Err(source)) = self.serve.as_ref().map(Serving::check) {
            return Err(ContractError::Serving {
                image: self.name,
                source,
            });
        }
        let mut zygotes = 0;
        for (language, spec) in &self.languages {
            let (argv, zygote, file) = match spec {
                LanguageSpec::Harness { argv, zygote } => (argv, zygote.as_ref(), None),
                LanguageSpec::File { file, argv } => (argv, None, Some(file)),
                LanguageSpec::Compiled { file, compile, .. } => (compile, None, Some(file)),
            };
            zygotes += usize::from(zygote.is_some());
            let relative = |argv: &[String]| argv.first().is_none_or(|word| !word.starts_with('/'));
            let detail = if let LanguageSpec::Compiled { keep, run, .. } = spec
                && (run.is_empty() || keep.is_empty() || check_patterns(keep).is_err())
            {
                Some(
                    "a compiled language must keep some files, by valid patterns, and run something",
                )
            } else if relative(argv) || zygote.is_some_and(|zygote| relative(&zygote.argv)) {
                Some("argv must begin with an absolute path")
            } else if zygotes > 1 {
                Some("another language has a zygote already")
            } else if file.is_some_and(|f| f.is_empty() || f.contains('/') || f == "." || f == "..")
            {
                Some("file must be a plain name")
            } else {
                None
            };
            if let Some(detail) = detail {
                return Err(ContractError::Language {
                    image: self.name,
                    language: language.clone(),
                    detail,
                });
            }
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOML: &str = r#"
        contract = 1
        name = "python"
        summary = "Python"
        language = "python"
        [languages.python]
        style = "harness"
        argv = ["/usr/bin/python3", "/usr/lib/sandhog/harness.py"]
        zygote = { argv = ["/usr/bin/python3", "/usr/lib/sandhog/zygote.py"], imports = ["numpy"] }
        [languages.bash]
        style = "file"
        file = "main.sh"
        argv = ["/bin/bash", "main.sh"]
        [env]
        MPLBACKEND = "Agg"
        [ceiling]
        memory = "1GiB"
    "#;

    #[test]
    fn a_contract_survives_its_label() {
        let contract = ImageContract::from_toml(TOML).unwrap();
        assert_eq!(
            ImageContract::from_label(&contract.to_label()).unwrap(),
            contract
        );
    }

    #[test]
    fn the_zygote_is_told_with_its_harness() {
        let contract = ImageContract::from_toml(TOML).unwrap();
        let (zygote, harness) = contract.zygote().unwrap();
        assert_eq!(zygote.imports, ["numpy"]);
        assert_eq!(harness, ["/usr/bin/python3", "/usr/lib/sandhog/harness.py"]);
        let without = TOML.replace("zygote = {", "# {");
        assert_eq!(ImageContract::from_toml(&without).unwrap().zygote(), None);
    }

    #[test]
    fn contracts_that_do_not_hold_together_are_refused() {
        for (case, from, to) in [
            ("version", "contract = 1", "contract = 2"),
            ("unknown field", "summary", "sumary"),
            (
                "default language",
                "language = \"python\"",
                "language = \"perl\"",
            ),
            ("relative program", "\"/bin/bash\"", "\"bash\""),
            (
                "relative zygote",
                "\"/usr/bin/python3\", \"/usr/lib/sandhog/zygote.py\"",
                "\"zygote.py\"",
            ),
            (
                "two zygotes",
                "[env]",
                "[languages.other]\nstyle = \"harness\"\nargv = [\"/x\"]\nzygote = { argv = [\"/y\"] }\n[env]",
            ),
            ("environment", "MPLBACKEND", "\"A=B\""),
            ("file with a directory", "\"main.sh\"\n", "\"../main.sh\"\n"),
        ] {
            assert!(
                ImageContract::from_toml(&TOML.replace(from, to)).is_err(),
                "case {case}"
            );
        }
    }

    #[test]
    fn a_language_the_image_lacks_is_named() {
        let contract = ImageContract::from_toml(TOML).unwrap();
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
