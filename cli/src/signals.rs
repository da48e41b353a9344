//! SIGINT and SIGTERM as a sequence of requests to stop.

use tokio::signal::unix::{Signal as Source, SignalKind, signal};

use crate::error::CliError;
use crate::exit::Exit;

/// A request to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopSignal {
    /// Ctrl-C.
    Interrupt,
    /// A plain `kill`, or a service manager.
    Terminate,
}

impl StopSignal {
    /// Returns the ending of a command that was stopped before its work was complete.
    #[must_use]
    pub(crate) const fn exit(self) -> Exit {
        match self {
            Self::Interrupt => Exit::Interrupted,
            Self::Terminate => Exit::Terminated,
        }
    }
}

/// Receiver of requests to stop. Once it exists, the signals no longer end the process.
#[derive(Debug)]
pub(crate) struct SignalStream {
    interrupt: Source,
    terminate: Source,
}

impl SignalStream {
    /// Installs the signal handlers.
    ///
    /// # Errors
    /// Fails if the handlers cannot be set.
    pub(crate) fn listen() -> Result<Self, CliError> {
        let source = |kind| {
            signal(kind).map_err(|e| {
                CliError::new(
                    Exit::Fault,
                    anyhow::Error::new(e).context("could not install the signal handlers"),
                )
            })
        };
        Ok(Self {
            interrupt: source(SignalKind::interrupt())?,
            terminate: source(SignalKind::terminate())?,
        })
    }

    /// Waits for the next request and returns it.
    ///
    /// # Cancel safety
    /// Safe: a request that arrives between two calls is returned by the next call.
    pub(crate) async fn next(&mut self) -> StopSignal {
        tokio::select! {
            _ = self.interrupt.recv() => StopSignal::Interrupt,
            _ = self.terminate.recv() => StopSignal::Terminate,
        }
    }
}
