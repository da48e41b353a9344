//! The ways in which an image runs source text: one for each language.

use serde::{Deserialize, Serialize};

use crate::files::check_patterns;
use crate::limits::LimitOverrides;

/// The way in which source text of one language is run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "style", rename_all = "snake_case", deny_unknown_fields)]
pub enum LanguageSpec {
    /// A program that reads source, arguments and input from descriptor 3, and writes a value or an
    /// exception there. The path of the harness is one of its arguments.
    Harness {
        /// The program and its arguments.
        argv: Vec<String>,
        /// The zygote, so that a program need not wait for the harness to start. At most one
        /// language of an image has one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        zygote: Option<ZygoteSpec>,
    },
    /// A program that reads the source from a file in the working directory. The job's arguments
    /// follow the command's.
    File {
        /// The file's name, without directories.
        file: String,
        /// The program and its arguments.
        argv: Vec<String>,
    },
    /// A compiler that reads the source from a file in the working directory, in a cell of its own.
    /// The files that it produces are copied to the working directory of a second cell, where the
    /// program runs.
    Compiled {
        /// The file's name, without directories.
        file: String,
        /// The compiler and its arguments.
        compile: Vec<String>,
        /// Patterns of the files that the compiler produces for the program.
        keep: Vec<String>,
        /// The program and its arguments; the job's arguments follow. A path without a leading
        /// slash is one of the kept files.
        run: Vec<String>,
        /// The compiler's caps.
        #[serde(default)]
        limits: Box<LimitOverrides>,
    },
}

/// A program that is started once in each container and cloned into every cell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ZygoteSpec {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// The modules that it imports before it is cloned. Every program finds them already imported.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub imports: Vec<String>,
}

impl LanguageSpec {
    /// Returns the zygote and the command of the harness that it replaces.
    pub(super) fn zygote(&self) -> Option<(&ZygoteSpec, &[String])> {
        match self {
            Self::Harness {
                argv,
                zygote: Some(zygote),
            } => Some((zygote, argv)),
            Self::Harness { zygote: None, .. } | Self::File { .. } | Self::Compiled { .. } => None,
        }
    }

    /// Returns the fault of this language, if there is one.
    pub(super) fn fault(&self) -> Option<&'static str> {
        let (argv, file) = match self {
            Self::Harness { argv, .. } => (argv, None),
            Self::File { file, argv } => (argv, Some(file)),
            Self::Compiled { file, compile, .. } => (compile, Some(file)),
        };
        if let Self::Compiled { keep, run, .. } = self
            && (run.is_empty() || keep.is_empty() || check_patterns(keep).is_err())
        {
            return Some(
                "a compiled language needs valid patterns in `keep` and a command in `run`",
            );
        }
        if is_relative(argv)
            || self
                .zygote()
                .is_some_and(|(zygote, _)| is_relative(&zygote.argv))
        {
            return Some("argv must begin with an absolute path");
        }
        if file.is_some_and(|f| f.is_empty() || f.contains('/') || f == "." || f == "..") {
            return Some("file must be a plain name");
        }
        None
    }
}

fn is_relative(argv: &[String]) -> bool {
    argv.first().is_none_or(|word| !word.starts_with('/'))
}
