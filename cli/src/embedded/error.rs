//! Errors of the private Redis and of its folder.

use std::io;
use std::path::PathBuf;

use crate::error::CliError;
use crate::exit::Exit;

/// An error of the private Redis or of its folder.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EmbeddedError {
    /// Neither `state.dir` nor a home directory is set.
    #[error("no state directory is known: neither state.dir nor HOME is set")]
    NoPlace,
    /// A file or folder could not be created, read or written.
    #[error("could not {step} {}", path.display())]
    File {
        /// The operation that failed.
        step: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The error of the system.
        #[source]
        source: io::Error,
    },
    /// Another `sandhog up` uses this state directory.
    #[error(
        "another `sandhog up` uses {}{}",
        path.display(),
        pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    Taken {
        /// The state directory.
        path: PathBuf,
        /// The process id of the other instance, if it is known.
        pid: Option<u32>,
    },
    /// redis-server is not installed.
    #[error("redis-server is not installed")]
    NoServer,
    /// redis-server could not be started.
    #[error("could not start {}", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// The error of the system.
        #[source]
        source: io::Error,
    },
    /// redis-server ended, or never answered.
    #[error("the private redis-server {what}{log_tail}")]
    Server {
        /// The fault, as a predicate.
        what: &'static str,
        /// The end of its log after a colon; empty if the log is empty.
        log_tail: String,
    },
}

impl From<EmbeddedError> for CliError {
    fn from(error: EmbeddedError) -> Self {
        let (exit, hint) = match &error {
            EmbeddedError::NoPlace => (
                Exit::Settings,
                Some("set SANDHOG_STATE_DIR to a folder that you can write to"),
            ),
            EmbeddedError::File { .. } => (Exit::Fault, None),
            EmbeddedError::Taken { .. } => (
                Exit::Unavailable,
                Some(
                    "use the running instance, which every command finds by itself; or set \
                     SANDHOG_STATE_DIR to another folder",
                ),
            ),
            EmbeddedError::NoServer => (
                Exit::Unavailable,
                Some(
                    "install it with `apt-get install redis-server`, or set SANDHOG_REDIS_URL to \
                     the address of a running Redis",
                ),
            ),
            EmbeddedError::Spawn { .. } | EmbeddedError::Server { .. } => (Exit::Unavailable, None),
        };
        let error = Self::new(exit, error);
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}
