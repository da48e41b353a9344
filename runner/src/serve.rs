//! The runner's main loop: prepares the container, sends `Ready`, runs one job after another, and
//! ends when the worker closes the connection.

use std::io;
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use sandhog_runner::protocol::{Features, FrameError, FromRunner, Run, ToRunner, VERSION, Warm};

use crate::cell::{CellError, Ended, Ground, reap_one};
use crate::link::Link;
use crate::warmth::Warmth;
use crate::{supervise, trial};

/// An error that ends the runner.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    /// This container cannot hold cells.
    #[error("this container cannot hold cells")]
    Prepare(#[source] CellError),
    /// Signals cannot be watched.
    #[error("signals cannot be watched")]
    Signals(#[source] nix::Error),
    /// The stream to the worker failed.
    #[error("the stream to the worker failed")]
    Stream(#[source] io::Error),
    /// The worker sent bytes that are not a frame.
    #[error("the worker broke the protocol")]
    Frame(#[source] FrameError),
    /// The worker sent a job while another one was running, or started a second zygote.
    #[error("unexpected frame `Run` or `Warm`: a job is running, or a zygote was started already")]
    OutOfTurn,
    /// The zygote ended, by itself or killed.
    #[error("the zygote ended unexpectedly")]
    Zygote,
    /// The worker sent more to a model server than the runner may hold, because the server did not
    /// read.
    #[error("the model server reads too slowly: more bytes wait for it than the runner may hold")]
    Flooded,
}

/// The next step of the serve loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Wait for the next job.
    Job,
    /// End: the worker closed the connection, or the engine asked this container to stop.
    End,
}

/// Runs jobs until the worker closes the connection.
///
/// # Errors
/// When the container cannot hold cells, or the worker breaks the protocol.
pub(crate) fn serve() -> Result<(), ServeError> {
    let mut link = Link::open().map_err(ServeError::Stream)?;
    let signals = Signals::watch().map_err(ServeError::Signals)?;
    let ground = match prepare() {
        Ok(ground) => ground,
        Err(error) => {
            link.send(&error.frame()).map_err(ServeError::Stream)?;
            return Err(ServeError::Prepare(error));
        }
    };
    let ready = FromRunner::Ready {
        version: VERSION,
        features: Features {
            memory_bytes: ground.memory_in_use(),
            ..ground.features().clone()
        },
    };
    link.send(&ready).map_err(ServeError::Stream)?;
    let mut warmth = None;
    loop {
        match wait_for_order(&mut link, &signals, warmth.as_mut())? {
            Order::Run(run) => {
                match supervise::run(&ground, &mut link, &signals, warmth.as_mut(), *run)? {
                    Next::Job => {}
                    Next::End => return Ok(()),
                }
            }
            Order::Warm(warm) if warmth.is_none() => {
                let (made, missing) = match Warmth::start(&ground, &warm) {
                    Ok(made) => (Some(made), None),
                    Err(error) => (None, Some(error.line())),
                };
                warmth = made;
                let warmed = FromRunner::Warmed {
                    missing,
                    memory_bytes: ground.memory_in_use(),
                };
                link.send(&warmed).map_err(ServeError::Stream)?;
            }
            Order::Warm(_) => return Err(ServeError::OutOfTurn),
            Order::End => return Ok(()),
        }
    }
}

/// Prepares the container, and makes a cell in it as a test where that is possible.
fn prepare() -> Result<Ground, CellError> {
    let ground = Ground::prepare()?;
    if ground.can_be_tried() {
        trial::make_a_cell(&ground)?;
    }
    Ok(ground)
}

/// An order from the worker.
enum Order {
    /// Start a zygote.
    Warm(Box<Warm>),
    /// Run a program.
    Run(Box<Run>),
    /// End: no further order will come.
    End,
}

/// Waits for the worker's next order. Meanwhile it keeps the standby cell going.
fn wait_for_order(
    link: &mut Link,
    signals: &Signals,
    mut warmth: Option<&mut Warmth>,
) -> Result<Order, ServeError> {
    loop {
        while let Some(frame) = link.next().map_err(ServeError::Frame)? {
            match frame {
                ToRunner::Warm(warm) => return Ok(Order::Warm(warm)),
                ToRunner::Run(run) => return Ok(Order::Run(run)),
                // The frame was sent before the worker received the report of its job.
                ToRunner::Cancel | ToRunner::Say { .. } | ToRunner::Answer { .. } => {}
            }
        }
        if link.closed() {
            return Ok(Order::End);
        }
        let mut ready = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        ready.extend(link.readable().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        ready.extend(
            link.writable()
                .map(|fd| PollFd::new(fd, PollFlags::POLLOUT)),
        );
        let spare = warmth
            .as_ref()
            .map_or(Vec::new(), |warmth| warmth.descriptors());
        ready.extend(
            spare
                .into_iter()
                .map(|fd| PollFd::new(fd, PollFlags::POLLIN)),
        );
        // An interrupted `poll` does no harm: the calls below never block.
        poll(&mut ready, PollTimeout::NONE).ok();
        if signals.take() == Heard::Quit {
            return Ok(Order::End);
        }
        reap_all(|_orphan| {});
        if let Some(warmth) = warmth.as_deref_mut() {
            warmth.attend();
            if !warmth.is_alive() {
                return Err(ServeError::Zygote);
            }
        }
        link.fill().map_err(ServeError::Stream)?;
        link.flush().map_err(ServeError::Stream)?;
    }
}

/// Reaps every dead child. As PID 1 the runner inherits every orphan of the container.
pub(crate) fn reap_all(mut each: impl FnMut(Ended)) {
    while let Ok(Some(ended)) = reap_one(false) {
        each(ended);
    }
}

/// The meaning of the pending signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// No signal, or only SIGCHLD.
    Nothing,
    /// SIGTERM or SIGINT: the container is to end.
    Quit,
}

/// The signals that the runner handles. They are blocked, and read from a `signalfd`, so that they
/// interrupt no call.
#[derive(Debug)]
pub(crate) struct Signals(SignalFd);

impl Signals {
    fn watch() -> nix::Result<Self> {
        let mask: SigSet = [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT]
            .into_iter()
            .collect();
        mask.thread_block()?;
        SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map(Self)
    }

    /// Returns the descriptor, which is readable when a signal is pending.
    pub(crate) fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Takes all pending signals.
    pub(crate) fn take(&self) -> Heard {
        let mut heard = Heard::Nothing;
        while let Ok(Some(signal)) = self.0.read_signal() {
            if signal.ssi_signo != Signal::SIGCHLD as u32 {
                heard = Heard::Quit;
            }
        }
        heard
    }
}
