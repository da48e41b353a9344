//! The contract of an image, and its checks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::language::{LanguageSpec, ZygoteSpec};
use super::python_packages::PythonPackages;
use crate::gpu::{GpuNeed, GpuNeedError};
use crate::id::{ImageName, RuntimeName, clip};
use crate::infer::{InferError, Serving};
use crate::job::{self, JobError};
use crate::limits::{LimitError, LimitOverrides};

/// The label that holds an image's contract as JSON.
pub const CONTRACT_LABEL: &str = "sandhog.contract";

/// The version of the contract that this code supports.
pub const CONTRACT_VERSION: u32 = 1;

/// The contract of an image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageContract {
    /// The version of this format: 1.
    pub contract: u32,
    /// The image's short name, which jobs name.
    pub name: ImageName,
    /// A summary for people, in one line.
    pub summary: String,
    /// The language of `code` if a job names none; empty if the image runs no code and only serves
    /// a model.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub language: String,
    /// The command for source text of each language.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub languages: BTreeMap<String, LanguageSpec>,
    /// Environment variables of every program. The job's own values take precedence. Variables that
    /// the image sets with `ENV` do not reach a cell.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The container runtime that the image needs; the worker's default if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<RuntimeName>,
    /// The GPUs of jobs that request none themselves, and of the image's model server. Jobs of an
    /// image with this field need a class that has the tag `gpu`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<GpuNeed>,
    /// Caps for jobs that name none.
    #[serde(default)]
    pub limits: LimitOverrides,
    /// The highest caps that a job may request.
    #[serde(default)]
    pub ceiling: LimitOverrides,
    /// The configuration of the image's model server, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serve: Option<Serving>,
    /// Source text, in the default language, that `sandhog images check` runs. It must succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<String>,
    /// Python packages that the build adds to the result of the Dockerfile.
    #[serde(default, skip_serializing_if = "PythonPackages::is_empty")]
    pub python: PythonPackages,
}

/// A contract that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ContractError {
    /// The TOML or JSON is malformed, or does not match the contract's structure.
    #[error("bad image contract: {detail}")]
    Syntax {
        /// The parser's message.
        detail: String,
    },
    /// The contract was written for another version of the format.
    #[error("image contract version {found} is not known (want {CONTRACT_VERSION})")]
    Version {
        /// The version found.
        found: u32,
    },
    /// The image has neither languages nor a model.
    #[error("image {image} runs no language and serves no model")]
    Nothing {
        /// The image.
        image: ImageName,
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
        /// The fault.
        detail: &'static str,
    },
    /// The `[serve]` table is inconsistent.
    #[error("image {image} cannot serve its model")]
    Serving {
        /// The image.
        image: ImageName,
        /// The key and its fault.
        #[source]
        source: Box<InferError>,
    },
    /// The `[gpu]` table is invalid.
    #[error("image {image} cannot be given the GPUs it wants")]
    Gpu {
        /// The image.
        image: ImageName,
        /// The key and its fault.
        #[source]
        source: GpuNeedError,
    },
    /// A default or a ceiling is below the floor of a limit.
    #[error("image {image} has limits that no program can run under, in {table}")]
    Limits {
        /// The image.
        image: ImageName,
        /// The table of the contract.
        table: String,
        /// The limit and its floor.
        #[source]
        source: Box<LimitError>,
    },
    /// An entry of `python.packages` that is not one requirement.
    #[error(
        "image {image}, python.packages: {found:?} is not one requirement (want a package, with a \
         version or without, such as \"shapely==2.1.1\")"
    )]
    Package {
        /// The image.
        image: ImageName,
        /// The entry.
        found: String,
    },
    /// A variable of `[env]` is invalid.
    #[error("image {image} has an environment that cannot be used")]
    Environment {
        /// The image.
        image: ImageName,
        /// The variable and its fault.
        #[source]
        source: JobError,
    },
}

impl ImageContract {
    /// Parses `image.toml`.
    ///
    /// # Errors
    /// Fails if the text does not parse or the contract is inconsistent.
    pub fn from_toml(text: &str) -> Result<Self, ContractError> {
        let contract: Self = toml::from_str(text).map_err(|error| syntax(&error))?;
        contract.checked()
    }

    /// Parses the label.
    ///
    /// # Errors
    /// Fails if the text does not parse or the contract is inconsistent.
    pub fn from_label(json: &str) -> Result<Self, ContractError> {
        let contract: Self = serde_json::from_str(json).map_err(|error| syntax(&error))?;
        contract.checked()
    }

    /// Returns the label's value.
    ///
    /// # Panics
    /// Never: a contract has string keys only.
    #[must_use]
    pub fn to_label(&self) -> String {
        serde_json::to_string(self).expect("a contract has string keys only")
    }

    /// Returns the contract as the text of an `image.toml` that extends no other one.
    ///
    /// # Panics
    /// Never: a contract has string keys only.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a contract has string keys only")
    }

    /// Returns the image's zygote and the command of the harness that it replaces, if it has one.
    #[must_use]
    pub fn zygote(&self) -> Option<(&ZygoteSpec, &[String])> {
        self.languages.values().find_map(LanguageSpec::zygote)
    }

    /// Compares every limit with its floor. Returns the first one below it, with the table that
    /// holds it.
    fn check_limits(&self) -> Result<(), (String, LimitError)> {
        let of = |table: &str, overrides: &LimitOverrides| {
            overrides.check().map_err(|error| (table.to_owned(), error))
        };
        of("[limits]", &self.limits)?;
        of("[ceiling]", &self.ceiling)?;
        for (language, spec) in &self.languages {
            if let LanguageSpec::Compiled { limits, .. } = spec {
                of(&format!("[languages.{language}]"), limits)?;
            }
        }
        Ok(())
    }

    pub(super) fn checked(self) -> Result<Self, ContractError> {
        if self.contract != CONTRACT_VERSION {
            return Err(ContractError::Version {
                found: self.contract,
            });
        }
        let runs_code = !self.languages.is_empty() || !self.language.is_empty();
        if !runs_code && self.serve.is_none() {
            return Err(ContractError::Nothing { image: self.name });
        }
        if runs_code && !self.languages.contains_key(&self.language) {
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
        if let Some(Err(source)) = self.gpu.as_ref().map(GpuNeed::check) {
            return Err(ContractError::Gpu {
                image: self.name,
                source,
            });
        }
        if let Some(Err(source)) = self.serve.as_ref().map(Serving::check) {
            return Err(ContractError::Serving {
                image: self.name,
                source: Box::new(source),
            });
        }
        if let Err((table, source)) = self.check_limits() {
            return Err(ContractError::Limits {
                image: self.name,
                table,
                source: Box::new(source),
            });
        }
        if let Some(found) = self.python.fault().map(str::to_owned) {
            return Err(ContractError::Package {
                image: self.name,
                found,
            });
        }
        let mut zygotes = 0;
        for (language, spec) in &self.languages {
            let has_zygote = spec.zygote().is_some();
            zygotes += usize::from(has_zygote);
            let one_too_many = has_zygote && zygotes > 1;
            let detail = spec
                .fault()
                .or_else(|| one_too_many.then_some("another language has a zygote already"));
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

pub(super) fn syntax(error: &dyn std::fmt::Display) -> ContractError {
    ContractError::Syntax {
        detail: clip(&error.to_string(), 400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Job;

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
    fn a_contract_survives_its_label_and_its_file() {
        let contract = ImageContract::from_toml(TOML).unwrap();
        assert_eq!(
            ImageContract::from_label(&contract.to_label()).unwrap(),
            contract
        );
        let text = contract.to_toml();
        assert_eq!(ImageContract::from_toml(&text).unwrap(), contract, "{text}");
        // A keeper reads this line only.
        let head = text.lines().take_while(|line| !line.starts_with('['));
        assert!(
            head.into_iter().any(|line| line == "name = \"python\""),
            "{text}"
        );
    }

    #[test]
    fn an_image_may_only_serve_a_model() {
        let bare = "contract = 1\nname = \"bare\"\nsummary = \"\"\n";
        let nothing = ImageContract::from_toml(bare).unwrap_err();
        assert!(matches!(nothing, ContractError::Nothing { .. }));
        let server = "server = { style = \"python\", model = \"m:M\", method = \"m\" }";
        let serves = format!("{bare}[serve]\n{server}\n");
        let contract = ImageContract::from_toml(&serves).unwrap();
        assert_eq!(
            ImageContract::from_label(&contract.to_label()).unwrap(),
            contract
        );
        let code = Job::code("bare".parse().unwrap(), "1").check().unwrap();
        let refused = contract.invocation(&code).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "image bare runs no code: it serves a model"
        );
        let confused = format!("{bare}language = \"python\"\n[serve]\n{server}\n");
        assert!(ImageContract::from_toml(&confused).is_err());
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
                "[languages.other]\nstyle = \"harness\"\nargv = [\"/x\"]\n\
                 zygote = { argv = [\"/y\"] }\n[env]",
            ),
            ("environment", "MPLBACKEND", "\"A=B\""),
            ("file with a directory", "\"main.sh\"\n", "\"../main.sh\"\n"),
            (
                "a ceiling in mebibytes without a unit",
                "memory = \"1GiB\"",
                "memory = 1024",
            ),
            (
                "a default below its floor",
                "[ceiling]",
                "[limits]\npids = 0\n[ceiling]",
            ),
        ] {
            assert!(
                ImageContract::from_toml(&TOML.replace(from, to)).is_err(),
                "case {case}"
            );
        }
    }
}
