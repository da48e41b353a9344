//! The payload of a job, as it is parsed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::blob::Blob;
use crate::gpu::GpuNeed;
use crate::id::{ImageName, RuntimeName, SecretName};
use crate::infer::CallTarget;
use crate::limits::{LimitOverrides, Limits};
use crate::size::Size;

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

    /// Returns the name of the other kind of job, and the fields that only jobs of that kind may
    /// have, each with `true` if this job has it.
    pub(super) fn fields_of_other_kind(&self) -> (&'static str, Vec<(&'static str, bool)>) {
        match self.kind {
            Kind::Infer => (
                "exec",
                vec![
                    ("code", self.code.is_some()),
                    ("argv", self.argv.is_some()),
                    ("language", self.language.is_some()),
                    ("args", !self.args.is_empty()),
                    ("env", !self.env.is_empty()),
                    ("secrets", !self.secrets.is_empty()),
                    ("stdin", !self.stdin.is_empty()),
                    ("runtime", self.runtime.is_some()),
                    ("file", self.file.is_some()),
                    ("expect_value", self.expect_value),
                    ("infer", !self.infer.is_empty()),
                    ("gpu", self.gpu.is_some()),
                ],
            ),
            Kind::Exec => (
                "infer",
                vec![
                    ("method", self.method.is_some()),
                    ("path", self.path.is_some()),
                    ("stream", self.stream),
                ],
            ),
        }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::ByteCount;

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
