//! The one error of this module: a step and what the kernel said.

use nix::errno::Errno;

/// A step of making or watching a cell that the kernel refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot {step}")]
pub(crate) struct CellError {
    /// What was tried, as in "cannot …".
    pub(crate) step: String,
    /// What the kernel said.
    #[source]
    pub(crate) errno: Errno,
}

impl CellError {
    /// An error of this step.
    pub(crate) fn new(step: impl Into<String>, errno: Errno) -> Self {
        Self {
            step: step.into(),
            errno,
        }
    }

    /// The step and the reason in one line, for a frame.
    pub(crate) fn line(&self) -> String {
        format!("{self}: {} ({:?})", self.errno.desc(), self.errno)
    }
}

/// Names the step that failed.
pub(super) trait Step<T> {
    /// Turns the kernel's refusal into a [`CellError`] of this step.
    fn step(self, step: &str) -> Result<T, CellError>;
}

impl<T> Step<T> for Result<T, Errno> {
    fn step(self, step: &str) -> Result<T, CellError> {
        self.map_err(|errno| CellError::new(step, errno))
    }
}

impl<T> Step<T> for std::io::Result<T> {
    fn step(self, step: &str) -> Result<T, CellError> {
        self.map_err(|error| CellError::new(step, errno_of(&error)))
    }
}

/// The kernel's reason in an I/O error; `EIO` when it has none.
pub(super) fn errno_of(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
