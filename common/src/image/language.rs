//! How an image runs source text: one way for each language.

use serde::{Deserialize, Serialize};

use crate::files::check_patterns;
use crate::limits::LimitWishes;

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
        limits: Box<LimitWishes>,
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

impl LanguageSpec {
    /// The zygote, and the command of the harness that it stands for.
    pub(super) fn zygote(&self) -> Option<(&ZygoteSpec, &[String])> {
        match self {
            Self::Harness {
                argv,
                zygote: Some(zygote),
            } => Some((zygote, argv)),
            Self::Harness { zygote: None, .. } | Self::File { .. } | Self::Compiled { .. } => None,
        }
    }

    /// What is wrong with it, if anything.
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
                "a compiled language must keep some files, by valid patterns, and run something",
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
