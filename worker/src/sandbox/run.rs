//! A sandbox: a running container whose runner takes one job after another.

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

/// How much of a runner's complaint is passed on.
pub(super) const KEPT_OF_FAULT: usize = 2000;

/// A piece of what a program printed.
pub type Output = (Stream, Bytes);

/// Where a program's questions to models go, and where their answers come from. What either says is not looked at
/// here.
#[derive(Debug)]
pub struct Desk {
    /// Takes questions. Must have room for as many as may be open at once.
    pub questions: mpsc::Sender<Vec<u8>>,
    /// One answer for each question, in any order.
    pub answers: mpsc::Receiver<Vec<u8>>,
}

/// What is left of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cleared {
    /// Whether that is nothing, so that the sandbox can serve again.
    pub clean: bool,
    /// What the whole container holds now, in bytes without file cache.
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

/// Whether a runner can be given a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It waits.
    Idle,
    /// It was given one, and nobody has heard how that ended.
    Running,
    /// Its program ended; nobody has heard that its cell is gone.
    Leaving,
    /// Its last cell did not end cleanly, or it broke the protocol.
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

    /// What it was started from.
    #[must_use]
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// What its runner found the kernel and the runtime to give.
    #[must_use]
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// Whether it can be given another job: its last one, if any, ended cleanly, and its container has neither ended
    /// nor spoken unasked since.
    pub fn is_usable(&mut self) -> bool {
        self.state == State::Idle && self.conversation.ear.is_quiet()
    }

    /// Runs one program in a fresh cell, sends what it prints to `output`, and returns once the cell is gone.
    ///
    /// As [`Sandbox::execute`] and then [`Sandbox::clear`].
    ///
    /// # Errors
    /// Always a fault of ours, never the program's; the sandbox must be destroyed after it.
    ///
    /// # Cancel safety
    /// Not cancel safe: when the future is dropped the program may still run, and the sandbox must be destroyed.
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

    /// Runs one program in a fresh cell, sends what it prints to `output`, and returns once all its processes are
    /// dead. [`Sandbox::clear`] must follow.
    ///
    /// What the program asks of models goes over `desk`; without one, it may ask none, whatever `run` says. `cancel`
    /// ends the program; its report then says so. A slow receiver of `output` slows the program down, and
    /// the time it takes does not count as the runner's silence; a closed one is no error, its output is dropped.
    ///
    /// # Errors
    /// Always a fault of ours, never the program's; the sandbox must be destroyed after it.
    ///
    /// # Cancel safety
    /// Not cancel safe: when the future is dropped the program may still run, and the sandbox must be destroyed.
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
            return Err(self.out_of_turn("no end of its last job"));
        }
        self.state = State::Running;
        let ended = self.converse(run, output, desk, cancel).await;
        self.state = match &ended {
            Ok(report) if report.clean => State::Leaving,
            Ok(_) | Err(_) => State::Spoiled,
        };
        ended
    }

    /// Waits until nothing is left of the last program's cell. Unless it is clean then, the sandbox must be destroyed.
    ///
    /// # Cancel safety
    /// Safe: it can be waited for again.
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

    /// Kills and removes the container, and waits for it. What the engine refuses is logged and left to the reaper.
    ///
    /// # Cancel safety
    /// Safe: the removal goes on without it.
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
                            return Err(self.out_of_turn("more output than the cap"));
                        }
                        waiting = Some(((stream, Bytes::from(data)), Instant::now()));
                    }
                    FromRunner::Ask { data } => {
                        if !asked.fits(data.len()) {
                            return Err(self.out_of_turn("more questions than the cap"));
                        }
                        if let Some(desk) = &desk && desk.questions.try_send(data).is_err() {
                            return Err(self.out_of_turn("a question nobody takes"));
                        }
                    }
                    FromRunner::Display { parts } => {
                        if !shown.keep(parts) {
                            return Err(self.out_of_turn("a display above its caps"));
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

/// The next answer for a program. Never, where nobody answers.
async fn answer(desk: &mut Option<Desk>) -> Option<Vec<u8>> {
    match desk {
        Some(desk) => desk.answers.recv().await,
        None => std::future::pending().await,
    }
}

/// What an error calls a frame.
pub(super) const fn kind(frame: &FromRunner) -> &'static str {
    match frame {
        FromRunner::Ready { .. } => "ready",
        FromRunner::Warmed { .. } => "warmed",
        FromRunner::Gone { .. } => "gone",
        FromRunner::Started => "started",
        FromRunner::Output { .. } => "output",
        FromRunner::Display { .. } => "display",
        FromRunner::Said { .. } => "said",
        FromRunner::Ask { .. } => "ask",
        FromRunner::Done(_) => "done",
        FromRunner::Fault { .. } => "fault",
    }
}
