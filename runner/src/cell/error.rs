//! The error type of this module: a failed step and the error of the kernel.

use nix::errno::Errno;

use sandhog_protocol::frames::FromRunner;

/// Step in which a program's seccomp filter is installed. The zygote uses the same text.
pub(super) const INSTALL_FILTER: &str = "install the seccomp filter";

/// A step of making or watching a cell that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot {step}")]
pub(crate) struct CellError {
    /// Description of the step that completes the sentence "cannot …".
    pub(crate) step: String,
    /// Error of the kernel.
    #[source]
    pub(crate) errno: Errno,
}

impl CellError {
    /// Makes an error of this step.
    pub(crate) fn new(step: impl Into<String>, errno: Errno) -> Self {
        Self {
            step: step.into(),
            errno,
        }
    }

    /// Returns whether a resource is used up that all users of the machine share: open files, or
    /// the kernel's memory for the machine code of filters, for which it returns an error that has
    /// no name (524). No program of this cell is to blame, and a later attempt may succeed.
    pub(crate) fn is_of_the_machine(&self) -> bool {
        match self.errno {
            Errno::ENFILE => true,
            Errno::UnknownErrno | Errno::ENOMEM => self.step == INSTALL_FILTER,
            _ => false,
        }
    }

    /// Returns the error as a frame for the worker.
    pub(crate) fn frame(&self) -> FromRunner {
        FromRunner::Fault {
            message: self.line(),
            machine: self.is_of_the_machine(),
        }
    }

    /// Returns the step and the reason in one line, for a frame.
    pub(crate) fn line(&self) -> String {
        format!("{self}: {} ({:?})", self.errno.desc(), self.errno)
    }
}

/// Adds the name of the failed step to an error.
pub(crate) trait Step<T> {
    /// Turns an error of the kernel into a [`CellError`] of this step.
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

/// Returns the kernel's error number in an I/O error, or `EIO` if it has none.
pub(super) fn errno_of(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_whole_machine_lacks_is_told_from_what_this_cell_lacks() {
        for (case, step, errno, want) in [
            (
                "no machine code left",
                INSTALL_FILTER,
                Errno::from_raw(524),
                true,
            ),
            (
                "a filter that is wrong",
                INSTALL_FILTER,
                Errno::EINVAL,
                false,
            ),
            ("no file left", "open /proc", Errno::ENFILE, true),
            (
                "no process left for us",
                "fork the program",
                Errno::EAGAIN,
                false,
            ),
            ("too many of our own", "open /proc", Errno::EMFILE, false),
            (
                "another error without a name",
                "open /proc",
                Errno::from_raw(524),
                false,
            ),
        ] {
            let error = CellError::new(step, errno);
            assert_eq!(error.is_of_the_machine(), want, "{case}");
        }
    }
}
