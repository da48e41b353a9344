//! SIGINT and SIGTERM, one after the other.

use tokio::signal::unix::{Signal as Source, SignalKind, signal};

use crate::exit::Exit;
use crate::fault::Fault;

/// A request to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Ctrl-C.
    Interrupt,
    /// A plain `kill`, or a service manager.
    Terminate,
}

impl Stop {
    /// How a process ends that was stopped in the middle of its work.
    #[must_use]
    pub(crate) const fn exit(self) -> Exit {
        match self {
            Self::Interrupt => Exit::Interrupted,
            Self::Terminate => Exit::Terminated,
        }
    }
}

/// Requests to stop, as they come. From its making on they no longer end the process by themselves.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Source,
    terminate: Source,
}

impl Signals {
    /// Starts to listen.
    ///
    /// # Errors
    /// When the handlers cannot be set.
    pub(crate) fn listen() -> Result<Self, Fault> {
        let source = |kind| {
            signal(kind).map_err(|e| {
                Fault::new(
                    Exit::Fault,
                    anyhow::Error::new(e).context("could not listen to signals"),
                )
            })
        };
        Ok(Self {
            interrupt: source(SignalKind::interrupt())?,
            terminate: source(SignalKind::terminate())?,
        })
    }

    /// The next request.
    ///
    /// # Cancel safety
    /// Safe: a request that came while nobody waited is answered by the next call.
    pub(crate) async fn next(&mut self) -> Stop {
        tokio::select! {
            _ = self.interrupt.recv() => Stop::Interrupt,
            _ = self.terminate.recv() => Stop::Terminate,
        }
    }
}
