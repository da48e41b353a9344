//! A sandbox: a running container whose runner executes one job at a time.

use std::time::Duration;

use bytes::Bytes;
use sandhog_common::id::clip;
use sandhog_common::units::Millis;
use sandhog_runner::protocol::{Features, FromRunner, Report, Run, Stream, ToRunner};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::bounds::{Asked, GONE_WITHIN, Kept, SILENCE, Shown, Watchdog, patience};
use super::container::Container;
use super::conversation::Conversation;
use super::{Image, SandboxError};

/// Maximum length of a runner's error message that is passed on, in characters.
pub(super) const KEPT_OF_FAULT: usize = 2000;

/// A piece of what a program printed.
pub type Output = (Stream, Bytes);

/// Channels for a program's inference requests and their responses. The sandbox does not parse the
/// content of either.
#[derive(Debug)]
pub struct Desk {
    /// Receives requests. Its capacity must be at least the number of requests that may be open at
    /// once.
    pub questions: mpsc::Sender<Vec<u8>>,
    /// Yields one response for each request, in any order.
    pub answers: mpsc::Receiver<Vec<u8>>,
}

/// Result of the cleanup of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cleared {
    /// True if nothing is left of the cell, so that the sandbox can run another job.
    pub clean: bool,
    /// Memory that the whole container uses after the cleanup, in bytes, without file cache.
    pub container_memory_bytes: Option<u64>,
}

/// A running container with a runner that waits for a job.
///
/// Dropping it removes the container in the background; [`Sandbox::destroy`] waits for that.
#[derive(Debug)]
pub struct Sandbox {
    container: Container,
    conversation: Conversation,
    image: Image,
    features: Features,
    state: State,
}

/// State of a runner between and during jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The runner waits for a job.
    Idle,
    /// The runner executes a job and has not reported its end.
    Running,
    /// The program has ended; the runner has not yet reported that its cell is removed.
    Leaving,
    /// The last cell did not end cleanly, or the runner broke the protocol.
    Spoiled,
}

impl Sandbox {
    pub(super) fn new(
        container: Container,
        conversation: Conversation,
        image: Image,
        features: Features,
    ) -> Self {
        Self {
            container,
            conversation,
            image,
            features,
            state: State::Idle,
        }
    }

    /// The container's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.container.name
    }

    /// The image that the container was started from.
    #[must_use]
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// The features of kernel and runtime that the runner found.
    #[must_use]
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// Returns whether the sandbox can run another job: its last job, if any, ended cleanly, and
    /// since then the container has neither ended nor sent an unexpected frame.
    pub fn is_usable(&mut self) -> bool {
        self.state == State::Idle && self.conversation.ear.is_quiet()
    }

    /// Runs one program in a fresh cell, sends what it prints to `output`, and returns once the
    /// cell is removed.
    ///
    /// Same as [`Sandbox::execute`] followed by [`Sandbox::clear`].
    ///
    /// # Errors
    /// An error is always a fault of the service, never of the program; the sandbox must be
    /// destroyed after it.
    ///
    /// # Cancel safety
    /// Not cancel safe: when the future is dropped, the program may still run, and the sandbox must
    /// be destroyed.
    pub async fn run(
        &mut self,
        run: Run,
        output: &mpsc::Sender<Output>,
        cancel: &CancellationToken,
    ) -> Result<Report, SandboxError> {
        let report = self.execute(run, output, None, cancel).await?;
        let cleared = self.clear().await;
        Ok(Report {
            clean: cleared.clean && report.clean,
            container_memory_bytes: cleared.container_memory_bytes,
            ..report
        })
    }

    /// Runs one program in a fresh cell, sends what it prints to `output`, and returns once all its
    /// processes are dead. [`Sandbox::clear`] must follow.
    ///
    /// The program's inference requests go over `desk`; without it the program may send none,
    /// whether or not `run` allows it. `cancel` ends the program, and its report then says so. A
    /// slow receiver of `output` slows the program down; the time that it takes does not count
    /// towards the runner's deadline. A closed receiver is no error: the output is dropped.
    ///
    /// # Errors
    /// An error is always a fault of the service, never of the program; the sandbox must be
    /// destroyed after it.
    ///
    /// # Cancel safety
    /// Not cancel safe: when the future is dropped, the program may still run, and the sandbox must
    /// be destroyed.
    pub async fn execute(
        &mut self,
        mut run: Run,
        output: &mpsc::Sender<Output>,
        desk: Option<Desk>,
        cancel: &CancellationToken,
    ) -> Result<Report, SandboxError> {
        if desk.is_none() {
            run.questions = None;
        }
        if self.state != State::Idle {
            return Err(self.out_of_turn("no clean end of its last job"));
        }
        self.state = State::Running;
        let ended = self.converse(run, output, desk, cancel).await;
        self.state = match &ended {
            Ok(report) if report.clean => State::Leaving,
            Ok(_) | Err(_) => State::Spoiled,
        };
        ended
    }

    /// Waits until the last program's cell is removed. Unless the result is clean, the sandbox must
    /// be destroyed.
    ///
    /// # Cancel safety
    /// Cancel safe: the caller can call it again.
    pub async fn clear(&mut self) -> Cleared {
        let mut container_memory_bytes = None;
        if self.state == State::Leaving {
            let heard = tokio::time::timeout(GONE_WITHIN, self.conversation.ear.hear()).await;
            self.state = match heard {
                Ok(Ok(FromRunner::Gone {
                    clean: true,
                    memory_bytes,
                })) => {
                    container_memory_bytes = memory_bytes;
                    State::Idle
                }
                other => {
                    tracing::warn!(container = %self.container.name, ?other, "cell not cleared");
                    State::Spoiled
                }
            };
        }
        Cleared {
            clean: self.state == State::Idle,
            container_memory_bytes,
        }
    }

    /// Kills and removes the container, and waits for the removal. If the engine fails to remove
    /// it, the error is logged and the container is left to the reaper.
    ///
    /// # Cancel safety
    /// Cancel safe: the removal goes on in the background.
    pub async fn destroy(self) {
        self.container.remove().await;
    }

    pub(super) fn into_parts(self) -> (Container, Conversation) {
        (self.container, self.conversation)
    }

    async fn converse(
        &mut self,
        run: Run,
        output: &mpsc::Sender<Output>,
        mut desk: Option<Desk>,
        cancel: &CancellationToken,
    ) -> Result<Report, SandboxError> {
        let caps = run.caps;
        let (questions, displays) = (run.questions, run.displays);
        let patience = patience(&caps);
        let mut watchdog = Watchdog::start(patience);
        let frame = ToRunner::Run(Box::new(run));
        tokio::time::timeout(patience, self.conversation.mouth.say(&frame))
            .await
            .map_err(|_elapsed| self.unresponsive(patience))??;
        drop(frame);

        let mut asked = Asked::new(questions);
        let mut kept = Kept::default();
        let mut shown = Shown::new(displays);
        let mut waiting: Option<(Output, Instant)> = None;
        let mut asked_to_cancel = false;
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled(), if !asked_to_cancel => {
                    asked_to_cancel = true;
                    tokio::time::timeout(SILENCE, self.conversation.mouth.say(&ToRunner::Cancel))
                        .await
                        .map_err(|_elapsed| self.unresponsive(SILENCE))??;
                    watchdog.shorten(Duration::from_millis(caps.grace_ms) + SILENCE);
                }
                Some(data) = answer(&mut desk) => {
                    asked.answered();
                    let frame = ToRunner::Answer { data };
                    tokio::time::timeout(SILENCE, self.conversation.mouth.say(&frame))
                        .await
                        .map_err(|_elapsed| self.unresponsive(SILENCE))??;
                }
                place = output.reserve(), if waiting.is_some() => {
                    if let Some((piece, since)) = waiting.take() {
                        watchdog.prolong(since.elapsed());
                        if let Ok(place) = place {
                            place.send(piece);
                        }
                    }
                }
                () = tokio::time::sleep_until(watchdog.until), if waiting.is_none() => {
                    return Err(self.unresponsive(watchdog.patience));
                }
                heard = self.conversation.ear.hear(), if waiting.is_none() => match heard? {
                    FromRunner::Started => {
                        if !asked_to_cancel {
                            watchdog = Watchdog::start(patience);
                        }
                    }
                    FromRunner::Output { stream, data } => {
                        if !kept.fits(stream, data.len(), &caps) {
                            return Err(self.out_of_turn("more output than its cap"));
                        }
                        waiting = Some(((stream, Bytes::from(data)), Instant::now()));
                    }
                    FromRunner::Ask { data } => {
                        if !asked.fits(data.len()) {
                            return Err(self.out_of_turn("more inference requests than its cap"));
                        }
                        if let Some(desk) = &desk && desk.questions.try_send(data).is_err() {
                            return Err(self.out_of_turn("an inference request without a receiver"));
                        }
                    }
                    FromRunner::Display { parts } => {
                        if !shown.keep(parts) {
                            return Err(self.out_of_turn("a display that exceeds its caps"));
                        }
                    }
                    FromRunner::Done(report) => {
                        return Ok(Report {
                            displays: shown.displays,
                            ..*report
                        });
                    }
                    FromRunner::Fault { message, machine } => {
                        return Err(SandboxError::Cell {
                            container: self.name().to_owned(),
                            message: clip(&message, KEPT_OF_FAULT),
                            machine,
                        });
                    }
                    other @ (FromRunner::Ready { .. }
                    | FromRunner::Said { .. }
                    | FromRunner::Warmed { .. }
                    | FromRunner::Gone { .. }) => return Err(self.out_of_turn(kind(&other))),
                },
            }
        }
    }

    fn out_of_turn(&self, frame: &'static str) -> SandboxError {
        SandboxError::OutOfTurn {
            container: self.name().to_owned(),
            frame,
        }
    }

    fn unresponsive(&self, patience: Duration) -> SandboxError {
        SandboxError::Unresponsive {
            container: self.name().to_owned(),
            within: Millis::from(patience),
        }
    }
}

/// Returns the next inference response for the program. Never completes without a `desk`.
async fn answer(desk: &mut Option<Desk>) -> Option<Vec<u8>> {
    match desk {
        Some(desk) => desk.answers.recv().await,
        None => std::future::pending().await,
    }
}

/// Returns the name of a frame for error messages.
pub(super) const fn kind(frame: &FromRunner) -> &'static str {
    match frame {
        FromRunner::Ready { .. } => "an unexpected `Ready` frame",
        FromRunner::Warmed { .. } => "an unexpected `Warmed` frame",
        FromRunner::Gone { .. } => "an unexpected `Gone` frame",
        FromRunner::Started => "an unexpected `Started` frame",
        FromRunner::Output { .. } => "an unexpected `Output` frame",
        FromRunner::Display { .. } => "an unexpected `Display` frame",
        FromRunner::Said { .. } => "an unexpected `Said` frame",
        FromRunner::Ask { .. } => "an unexpected `Ask` frame",
        FromRunner::Done(_) => "an unexpected `Done` frame",
        FromRunner::Fault { .. } => "an unexpected `Fault` frame",
    }
}
