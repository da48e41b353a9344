//! A sandbox: a running container whose runner executes one job at a time.

use std::time::Duration;

use bytes::Bytes;
use sandhog_core::id::clip;
use sandhog_core::units::{ByteCount, Millis};
use sandhog_protocol::frames::{CallReport, Features, FromRunner, Stream, ToRunner};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::caps::{
    CLEANUP_TIMEOUT, DisplayMeter, InferMeter, OutputMeter, RUNNER_MARGIN, Watchdog, job_timeout,
};
use super::container::Container;
use super::run::ONLY_CALL;
use super::runner_connection::{AnyRunnerConnection, describe_frame};
use super::{Image, Report, Run, SandboxError};

/// Maximum length of a runner's error message that is passed on, in characters.
pub(super) const MAX_FAULT_LENGTH: usize = 2000;

/// A piece of what a program printed.
pub type Output = (Stream, Bytes);

/// Channels for a program's inference requests and their responses. The sandbox does not parse the
/// content of either.
#[derive(Debug)]
pub struct InferChannels {
    /// Receives requests. Its capacity must be at least the number of requests that may be open at
    /// once.
    pub requests: mpsc::Sender<Vec<u8>>,
    /// Yields one response for each request, in any order.
    pub responses: mpsc::Receiver<Vec<u8>>,
}

/// Result of the cleanup of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cleanup {
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
    connection: AnyRunnerConnection,
    image: Image,
    features: Features,
    room: Option<ByteCount>,
    state: RunnerState,
}

/// State of a runner between and during jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RunnerState {
    /// The runner waits for a job.
    Idle,
    /// The runner executes a job and has not reported its end.
    Running,
    /// The program and its cell have ended; the runner has not yet reported that the cell is
    /// removed.
    Leaving,
    /// The last cell did not end cleanly, or the runner broke the protocol.
    Spoiled,
}

impl Sandbox {
    pub(super) fn new(
        container: Container,
        connection: AnyRunnerConnection,
        image: Image,
        features: Features,
    ) -> Self {
        Self {
            container,
            connection,
            image,
            features,
            room: None,
            state: RunnerState::Idle,
        }
    }

    /// Sets the memory that all sandboxes of the same keeper may hold together.
    pub(super) fn set_room(&mut self, room: Option<ByteCount>) {
        self.room = room;
    }

    /// The memory that all sandboxes of the same image and their jobs may hold together, if one
    /// keeper makes them.
    #[must_use]
    pub fn room(&self) -> Option<ByteCount> {
        self.room
    }

    /// The container's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.container.name()
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
        self.state == RunnerState::Idle && self.connection.reader.is_quiet()
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
    /// The program's inference requests go over `infer`; without it the program may send none,
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
        infer: Option<InferChannels>,
        cancel: &CancellationToken,
    ) -> Result<Report, SandboxError> {
        if infer.is_none() {
            run.infer_quota = None;
        }
        if self.state != RunnerState::Idle {
            return Err(self.protocol_violation("no clean end of its last job"));
        }
        self.state = RunnerState::Running;
        let ended = self.drive_job(run, output, infer, cancel).await;
        self.state = match &ended {
            Ok(report) if report.clean => RunnerState::Leaving,
            Ok(_) | Err(_) => RunnerState::Spoiled,
        };
        ended
    }

    /// Waits until the last program's cell is removed. Unless the result is clean, the sandbox must
    /// be destroyed.
    ///
    /// # Cancel safety
    /// Cancel safe: the caller can call it again.
    pub async fn clear(&mut self) -> Cleanup {
        let mut container_memory_bytes = None;
        if self.state == RunnerState::Leaving {
            let received =
                tokio::time::timeout(CLEANUP_TIMEOUT, self.connection.reader.recv()).await;
            self.state = match received {
                Ok(Ok(FromRunner::CellClosed {
                    clean: true,
                    memory_bytes,
                })) => {
                    container_memory_bytes = memory_bytes;
                    RunnerState::Idle
                }
                other => {
                    tracing::warn!(container = %self.container.name(), ?other, "cell not cleared");
                    RunnerState::Spoiled
                }
            };
        }
        Cleanup {
            clean: self.state == RunnerState::Idle,
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

    pub(super) fn into_parts(self) -> (Container, AnyRunnerConnection) {
        (self.container, self.connection)
    }

    async fn drive_job(
        &mut self,
        run: Run,
        output: &mpsc::Sender<Output>,
        mut infer: Option<InferChannels>,
        cancel: &CancellationToken,
    ) -> Result<Report, SandboxError> {
        let caps = run.caps.call;
        let (infer_quota, display_caps) = (run.infer_quota, run.displays);
        let timeout = job_timeout(&caps);
        let mut watchdog = Watchdog::start(timeout);
        let frames = run.into_frames();
        self.send_in_time(&frames, timeout).await?;
        drop(frames);

        let mut requests = InferMeter::new(infer_quota);
        let mut printed = OutputMeter::default();
        let mut shown = DisplayMeter::new(display_caps);
        let mut waiting: Option<(Output, Instant)> = None;
        let mut cancel_sent = false;
        let mut call_ended: Option<Box<CallReport>> = None;
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled(), if !cancel_sent => {
                    cancel_sent = true;
                    let frame = ToRunner::Cancel { id: ONLY_CALL };
                    self.send_in_time(&[frame], RUNNER_MARGIN).await?;
                    watchdog.shorten(Duration::from_millis(caps.grace_ms) + RUNNER_MARGIN);
                }
                Some(data) = next_response(&mut infer) => {
                    requests.record_response();
                    let frame = ToRunner::InferResponse { id: ONLY_CALL, data };
                    self.send_in_time(&[frame], RUNNER_MARGIN).await?;
                }
                permit = output.reserve(), if waiting.is_some() => {
                    if let Some((piece, since)) = waiting.take() {
                        watchdog.prolong(since.elapsed());
                        if let Ok(permit) = permit {
                            permit.send(piece);
                        }
                    }
                }
                () = tokio::time::sleep_until(watchdog.until), if waiting.is_none() => {
                    return Err(self.unresponsive(watchdog.timeout));
                }
                received = self.connection.reader.recv(), if waiting.is_none() => match received? {
                    other if is_stray(&other, call_ended.is_some()) => {
                        return Err(self.protocol_violation(describe_frame(&other)));
                    }
                    FromRunner::Started { .. } => {
                        if !cancel_sent {
                            watchdog = Watchdog::start(timeout);
                        }
                    }
                    FromRunner::Output { stream, data, .. } => {
                        if !printed.fits(stream, data.len(), &caps) {
                            return Err(self.protocol_violation("more output than its cap"));
                        }
                        waiting = Some(((stream, Bytes::from(data)), Instant::now()));
                    }
                    FromRunner::InferRequest { data, .. } => {
                        if !requests.fits(data.len()) {
                            let excess = "more inference requests than its cap";
                            return Err(self.protocol_violation(excess));
                        }
                        if let Some(infer) = &infer && infer.requests.try_send(data).is_err() {
                            let stray = "an inference request without a receiver";
                            return Err(self.protocol_violation(stray));
                        }
                    }
                    FromRunner::Display { parts, .. } => {
                        if !shown.keep(parts) {
                            return Err(self.protocol_violation("a display that exceeds its caps"));
                        }
                    }
                    FromRunner::CallEnded { report, .. } => call_ended = Some(report),
                    FromRunner::CellEnded(cell) => match call_ended {
                        Some(call) => return Ok(Report::new(*call, *cell, shown.displays)),
                        None => {
                            return Err(self.protocol_violation("the end of a cell with a call"));
                        }
                    },
                    FromRunner::Fault { message, machine } => {
                        return Err(SandboxError::Cell {
                            container: self.name().to_owned(),
                            message: clip(&message, MAX_FAULT_LENGTH),
                            machine,
                        });
                    }
                    other @ (FromRunner::Ready { .. }
                    | FromRunner::ModelOutput { .. }
                    | FromRunner::ZygoteReady { .. }
                    | FromRunner::CellClosed { .. }) => {
                        return Err(self.protocol_violation(describe_frame(&other)));
                    }
                },
            }
        }
    }

    /// Sends frames in one write to the runner, which must accept them within `timeout`.
    async fn send_in_time(
        &mut self,
        frames: &[ToRunner],
        timeout: Duration,
    ) -> Result<(), SandboxError> {
        tokio::time::timeout(timeout, self.connection.writer.send(frames))
            .await
            .map_err(|_elapsed| self.unresponsive(timeout))?
    }

    fn protocol_violation(&self, frame: &'static str) -> SandboxError {
        SandboxError::ProtocolViolation {
            container: self.name().to_owned(),
            frame,
        }
    }

    fn unresponsive(&self, timeout: Duration) -> SandboxError {
        SandboxError::Unresponsive {
            container: self.name().to_owned(),
            within: Millis::from(timeout),
        }
    }
}

/// Returns whether a frame belongs to another call, or to a call that has ended.
fn is_stray(frame: &FromRunner, call_ended: bool) -> bool {
    frame
        .call()
        .is_some_and(|call| call != ONLY_CALL || call_ended)
}

/// Returns the next inference response for the program. Never completes without `infer`.
async fn next_response(infer: &mut Option<InferChannels>) -> Option<Vec<u8>> {
    match infer {
        Some(infer) => infer.responses.recv().await,
        None => std::future::pending().await,
    }
}
