//! Why the private Redis could not be had.

use std::io;
use std::path::PathBuf;

use crate::exit::Exit;
use crate::fault::Fault;

/// Why the private Redis or its folder could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EmbeddedError {
    /// Neither `state.dir` nor a home directory.
    #[error("there is no place for the state directory (HOME is not set)")]
    NoPlace,
    /// A file or folder could not be made, read or written.
    #[error("could not {step} {}", path.display())]
    File {
        /// What was tried.
        step: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another `sandhog up` works on this state directory.
    #[error("another `sandhog up` uses {}{}", path.display(), pid.map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    Taken {
        /// The state directory.
        path: PathBuf,
        /// Its process, if it said.
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
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// redis-server ended, or never answered.
    #[error("the private redis-server {what}{said}")]
    Server {
        /// What it did.
        what: &'static str,
        /// The end of its log, after a colon; empty if it said nothing.
        said: String,
    },
}

impl From<EmbeddedError> for Fault {
    fn from(error: EmbeddedError) -> Self {
        let (exit, hint) = match &error {
            EmbeddedError::NoPlace => (
                Exit::Settings,
                Some("set SANDHOG_STATE_DIR to a folder that may be written"),
            ),
            EmbeddedError::File { .. } => (Exit::Fault, None),
            EmbeddedError::Taken { .. } => (
                Exit::Unavailable,
                Some(
                    "use the one that runs: every command finds it; or set SANDHOG_STATE_DIR to another folder",
                ),
            ),
            EmbeddedError::NoServer => (
                Exit::Unavailable,
                Some(
                    "apt-get install redis-server, or set SANDHOG_REDIS_URL to one that runs elsewhere",
                ),
            ),
            EmbeddedError::Spawn { .. } | EmbeddedError::Server { .. } => (Exit::Unavailable, None),
        };
        let fault = Self::new(exit, error);
        match hint {
            Some(hint) => fault.hint(hint),
            None => fault,
        }
    }
}
