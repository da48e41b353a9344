//! The signals of the runner, read from a descriptor.

use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// The meaning of the pending signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SignalEvent {
    /// No signal, or only SIGCHLD.
    None,
    /// SIGTERM or SIGINT: the container is to end.
    Shutdown,
}

/// The signals that the runner handles. They are blocked, and read from a `signalfd`, so that they
/// interrupt no call.
#[derive(Debug)]
pub(crate) struct Signals(SignalFd);

impl Signals {
    /// Blocks the signals and opens the descriptor that reports them.
    ///
    /// # Errors
    /// Fails if the kernel refuses.
    pub(crate) fn watch() -> nix::Result<Self> {
        let mask: SigSet = [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT]
            .into_iter()
            .collect();
        mask.thread_block()?;
        SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map(Self)
    }

    /// Returns the descriptor, which is readable when a signal is pending.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Takes all pending signals.
    pub(crate) fn take(&self) -> SignalEvent {
        let mut event = SignalEvent::None;
        while let Ok(Some(signal)) = self.0.read_signal() {
            if signal.ssi_signo != Signal::SIGCHLD as u32 {
                event = SignalEvent::Shutdown;
            }
        }
        event
    }
}
