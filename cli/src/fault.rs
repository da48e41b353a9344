//! An error on its way to the terminal: what went wrong, what to do about it, and the exit code.
//!
//! Libraries say whose fault an error is and what to do about it in code; [`Fault::from`] is where each of their
//! errors gets its exit code, in one exhaustive match per library.

use std::fmt;

use sandhog_common::config::ConfigError;
use sandhog_common::queue::QueueError;
use sandhog_producer::ClientError;
use sandhog_worker::images::ImageError;
use sandhog_worker::sandbox::SandboxError;

use crate::exit::Exit;

/// Why a command could not do what it was asked.
#[derive(Debug)]
pub(crate) struct Fault {
    /// How the process ends.
    pub(crate) exit: Exit,
    /// What went wrong, with its causes.
    pub(crate) error: anyhow::Error,
    /// What a person can do about it.
    pub(crate) hint: Option<String>,
}

impl Fault {
    /// An error with its exit code and no hint.
    #[must_use]
    pub(crate) fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self {
            exit,
            error: error.into(),
            hint: None,
        }
    }

    /// An error that is only a message.
    #[must_use]
    pub(crate) fn message(exit: Exit, message: impl fmt::Display) -> Self {
        Self::new(exit, anyhow::Error::msg(message.to_string()))
    }

    /// The same with advice.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The message and those of its causes, each once.
    #[must_use]
    pub(crate) fn chain(&self) -> String {
        let mut told: Vec<String> = Vec::new();
        for cause in self.error.chain().map(ToString::to_string) {
            // Some libraries repeat their cause in their own message.
            if !told.iter().any(|before| before.contains(&cause)) {
                told.push(cause);
            }
        }
        told.join(": ")
    }
}

impl From<ConfigError> for Fault {
    fn from(error: ConfigError) -> Self {
        Self::new(Exit::Settings, error)
            .hint("`sandhog config keys` lists every setting with its meaning and default")
    }
}

impl From<QueueError> for Fault {
    fn from(error: QueueError) -> Self {
        let hint = error.hint().map(str::to_owned);
        Self {
            exit: Exit::Unavailable,
            hint,
            error: error.into(),
        }
    }
}

impl From<ClientError> for Fault {
    fn from(error: ClientError) -> Self {
        let exit = match &error {
            ClientError::Queue(_) => Exit::Unavailable,
            ClientError::Job(_) => Exit::Usage,
            ClientError::TooLarge { .. } => Exit::Rejected,
            ClientError::NoResult { .. } => Exit::NotYet,
            ClientError::Unknown { .. } => Exit::Missing,
            ClientError::Result { .. } => Exit::Fault,
        };
        let hint = error.hint().map(str::to_owned);
        Self {
            exit,
            hint,
            error: error.into(),
        }
    }
}

impl From<SandboxError> for Fault {
    fn from(error: SandboxError) -> Self {
        let hint = error.hint().map(str::to_owned);
        Self {
            exit: sandbox_exit(&error),
            hint,
            error: error.into(),
        }
    }
}

impl From<ImageError> for Fault {
    fn from(error: ImageError) -> Self {
        let exit = match &error {
            ImageError::NoFolder { .. }
            | ImageError::UnknownFolder { .. }
            | ImageError::NoContract { .. }
            | ImageError::NoParent { .. } => Exit::Missing,
            ImageError::NoRunner { .. } | ImageError::RunnerNotStatic { .. } => Exit::Missing,
            ImageError::Read { .. }
            | ImageError::Contract { .. }
            | ImageError::OtherName { .. }
            | ImageError::Circle { .. }
            | ImageError::Base { .. }
            | ImageError::Build { .. }
            | ImageError::Check { .. }
            | ImageError::Model { .. }
            | ImageError::TooLarge { .. } => Exit::Unsuccessful,
            ImageError::Sandbox(error) => sandbox_exit(error),
        };
        let hint = error.hint().map(str::to_owned);
        Self {
            exit,
            hint,
            error: error.into(),
        }
    }
}

const fn sandbox_exit(error: &SandboxError) -> Exit {
    match error {
        SandboxError::UnknownImage { .. }
        | SandboxError::NoContract { .. }
        | SandboxError::BadContract { .. }
        | SandboxError::UnusableImage { .. }
        | SandboxError::RuntimeRefused { .. } => Exit::Missing,
        SandboxError::BadEndpoint { .. }
        | SandboxError::Unreachable { .. }
        | SandboxError::Forbidden { .. }
        | SandboxError::OldEngine { .. }
        | SandboxError::UnknownRuntime { .. } => Exit::Unavailable,
        SandboxError::Engine { .. }
        | SandboxError::NotReady { .. }
        | SandboxError::RunnerVersion { .. }
        | SandboxError::Died { .. }
        | SandboxError::Connection { .. }
        | SandboxError::Protocol { .. }
        | SandboxError::ModelProtocol { .. }
        | SandboxError::OutOfTurn { .. }
        | SandboxError::Cell { .. }
        | SandboxError::GpuLost { .. }
        | SandboxError::Unresponsive { .. } => Exit::Fault,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn causes_are_told_once() {
        let inner: Result<(), _> = Err(anyhow::anyhow!("connection refused"));
        let error = inner
            .context("no answer at /run/x: connection refused")
            .context("could not start")
            .unwrap_err();
        assert_eq!(
            Fault::new(Exit::Fault, error).chain(),
            "could not start: no answer at /run/x: connection refused"
        );
    }
}
