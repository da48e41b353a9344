//! The error of a command: its message, a hint, and the exit code.
//!
//! The errors of the libraries provide the hints. [`CliError::from`] assigns an exit code to each
//! of their errors, in one match for each library.

use std::fmt;

use sandhog_config::ConfigError;
use sandhog_core::outcome::Fault;
use sandhog_producer::ClientError;
use sandhog_queue::QueueError;
use sandhog_worker::images::ImageError;
use sandhog_worker::sandbox::SandboxError;

use crate::exit::Exit;

/// The error of a command.
#[derive(Debug)]
pub(crate) struct CliError {
    /// The exit code of the process.
    pub(crate) exit: Exit,
    /// The error with its causes.
    pub(crate) error: anyhow::Error,
    /// Advice for the user.
    pub(crate) hint: Option<String>,
}

impl CliError {
    /// Creates an error with an exit code and no hint.
    #[must_use]
    pub(crate) fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self {
            exit,
            error: error.into(),
            hint: None,
        }
    }

    /// Creates an error that consists of a message only.
    #[must_use]
    pub(crate) fn message(exit: Exit, message: impl fmt::Display) -> Self {
        Self::new(exit, anyhow::Error::msg(message.to_string()))
    }

    /// Adds a hint to the error.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Returns the message of the error and those of its causes, without repetitions.
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

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        Self::new(Exit::Settings, error)
            .hint("`sandhog config keys` lists every setting with its meaning and default")
    }
}

impl From<QueueError> for CliError {
    fn from(error: QueueError) -> Self {
        let hint = error.hint().map(str::to_owned);
        Self {
            exit: Exit::Unavailable,
            hint,
            error: error.into(),
        }
    }
}

impl From<ClientError> for CliError {
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

impl From<SandboxError> for CliError {
    fn from(error: SandboxError) -> Self {
        let hint = error.hint().map(str::to_owned);
        Self {
            exit: sandbox_exit(&error),
            hint,
            error: error.into(),
        }
    }
}

impl From<ImageError> for CliError {
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
    match error.fault() {
        Fault::Submitter => Exit::Missing,
        Fault::Service | Fault::Program | Fault::Nobody if error.is_unavailable() => {
            Exit::Unavailable
        }
        Fault::Service | Fault::Program | Fault::Nobody => Exit::Fault,
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
            CliError::new(Exit::Fault, error).chain(),
            "could not start: no answer at /run/x: connection refused"
        );
    }
}
