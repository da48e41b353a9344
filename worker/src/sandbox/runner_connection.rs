//! Framed I/O with one runner, over any pair of byte streams.
//!
//! The input is hostile: a runner whose container was escaped from could send anything. The
//! protocol bounds the length of a frame, only the first part of standard error is kept, and bytes
//! that are no valid frame are an error.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use sandhog_core::id::clip;
use sandhog_protocol::frames::{self, FromRunner, ToRunner};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::SandboxError;

/// Number of bytes of a runner's standard error that are kept for an error message.
const STDERR_HEAD_BYTES: usize = 2048;

/// Number of bytes that the buffer has at least free before a read.
const READ_CHUNK_BYTES: usize = 8 << 10;

/// Both directions of the connection to one runner, which reads frames from `R` and writes frames
/// to `W`.
pub(super) struct RunnerConnection<R, W> {
    pub(super) writer: FrameWriter<W>,
    pub(super) reader: FrameReader<R>,
}

/// A connection over the streams of any engine.
pub(super) type AnyRunnerConnection = RunnerConnection<AnyReader, AnyWriter>;

/// The runner's standard output, or its replacement on another engine.
pub(super) type AnyReader = Pin<Box<dyn AsyncRead + Send>>;

/// The runner's standard input, or its replacement on another engine.
pub(super) type AnyWriter = Pin<Box<dyn AsyncWrite + Send>>;

impl<R, W> RunnerConnection<R, W> {
    /// Creates the connection to the runner in the container of that name. `stderr` receives what
    /// the runner writes to standard error, for error messages.
    pub(super) fn new(container: &str, input: R, output: W, stderr: StderrHead) -> Self {
        Self {
            writer: FrameWriter {
                container: container.to_owned(),
                output,
            },
            reader: FrameReader {
                container: container.to_owned(),
                input,
                buffer: Vec::new(),
                stderr,
            },
        }
    }
}

impl<R, W> fmt::Debug for RunnerConnection<R, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunnerConnection")
            .field("container", &self.reader.container)
            .field("buffered", &self.reader.buffer.len())
            .finish_non_exhaustive()
    }
}

/// First bytes of a runner's standard error. Clones share the bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct StderrHead(Arc<Mutex<Vec<u8>>>);

impl StderrHead {
    /// Appends bytes, up to the limit.
    pub(super) fn push(&self, bytes: &[u8]) {
        let mut head = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = STDERR_HEAD_BYTES.saturating_sub(head.len());
        head.extend(bytes.iter().take(room));
    }

    /// Returns the text, preceded by a colon, for an error message. Returns an empty string if
    /// there is none.
    pub(super) fn text(&self) -> String {
        let head = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&head);
        match text.trim() {
            "" => String::new(),
            text => format!(": {}", clip(text, STDERR_HEAD_BYTES)),
        }
    }
}

/// Sends frames to a runner.
pub(super) struct FrameWriter<W> {
    container: String,
    output: W,
}

impl<W> FrameWriter<W> {
    /// The container's name.
    pub(super) fn container(&self) -> &str {
        &self.container
    }
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// Sends frames in one write.
    ///
    /// # Cancel safety
    /// Not cancel safe: a partly written frame makes the connection unusable.
    pub(super) async fn send(&mut self, frames: &[ToRunner]) -> Result<(), SandboxError> {
        let mut bytes = Vec::new();
        for frame in frames {
            frames::encode_into(&mut bytes, frame);
        }
        let sent = async {
            self.output.write_all(&bytes).await?;
            self.output.flush().await
        };
        sent.await.map_err(|source| SandboxError::Connection {
            container: self.container.clone(),
            source: source.into(),
        })
    }
}

/// Receives frames from a runner.
pub(super) struct FrameReader<R> {
    container: String,
    input: R,
    buffer: Vec<u8>,
    stderr: StderrHead,
}

impl<R> FrameReader<R> {
    /// The container's name.
    pub(super) fn container(&self) -> &str {
        &self.container
    }

    /// Returns what the runner wrote to standard error, preceded by a colon, for an error message.
    /// Returns an empty string if it wrote nothing.
    pub(super) fn stderr_head(&self) -> String {
        self.stderr.text()
    }
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads the next frame.
    ///
    /// # Cancel safety
    /// Cancel safe: the part of a frame that has arrived stays in the buffer.
    pub(super) async fn recv(&mut self) -> Result<FromRunner, SandboxError> {
        loop {
            match frames::take(&mut self.buffer) {
                Ok(Some(frame)) => return Ok(frame),
                Ok(None) => {}
                Err(source) => {
                    return Err(SandboxError::Protocol {
                        container: self.container.clone(),
                        source,
                    });
                }
            }
            self.fill_buffer().await?;
        }
    }

    /// Returns whether no data has arrived since the last frame and the stream is still open. An
    /// idle sandbox must not send anything.
    pub(super) fn is_quiet(&mut self) -> bool {
        match self.fill_buffer().now_or_never() {
            Some(_data_or_end) => false,
            None => self.buffer.is_empty(),
        }
    }

    /// Waits for more bytes and appends them to the buffer.
    ///
    /// # Cancel safety
    /// Cancel safe: a read that is dropped has read nothing.
    async fn fill_buffer(&mut self) -> Result<(), SandboxError> {
        self.buffer.reserve(READ_CHUNK_BYTES);
        match self.input.read_buf(&mut self.buffer).await {
            Ok(0) => Err(SandboxError::Died {
                container: self.container.clone(),
                stderr: self.stderr_head(),
            }),
            Ok(_more) => Ok(()),
            Err(source) => Err(SandboxError::Connection {
                container: self.container.clone(),
                source: source.into(),
            }),
        }
    }
}

/// Returns the name of a frame for error messages.
pub(super) const fn describe_frame(frame: &FromRunner) -> &'static str {
    match frame {
        FromRunner::Ready { .. } => "an unexpected `Ready` frame",
        FromRunner::ZygoteReady { .. } => "an unexpected `ZygoteReady` frame",
        FromRunner::CellEnded(_) => "an unexpected `CellEnded` frame",
        FromRunner::CellClosed { .. } => "an unexpected `CellClosed` frame",
        FromRunner::Started { .. } => "an unexpected `Started` frame",
        FromRunner::Output { .. } => "an unexpected `Output` frame",
        FromRunner::Display { .. } => "an unexpected `Display` frame",
        FromRunner::ModelOutput { .. } => "an unexpected `ModelOutput` frame",
        FromRunner::InferRequest { .. } => "an unexpected `InferRequest` frame",
        FromRunner::CallEnded { .. } => "an unexpected `CallEnded` frame",
        FromRunner::Fault { .. } => "an unexpected `Fault` frame",
    }
}

#[cfg(test)]
mod tests {
    use sandhog_protocol::frames::CallId;
    use tokio::io::{Sink, sink};

    use super::*;

    const STARTED: FromRunner = FromRunner::Started { id: CallId(1) };

    fn connection<R>(input: R) -> RunnerConnection<R, Sink> {
        RunnerConnection::new("box", input, sink(), StderrHead::default())
    }

    #[tokio::test]
    async fn what_is_no_frame_is_an_error() {
        let bytes = [0xff; 64];
        let mut connection = connection(bytes.as_slice());
        assert!(matches!(
            connection.reader.recv().await,
            Err(SandboxError::Protocol { .. })
        ));
    }

    #[tokio::test]
    async fn frames_larger_than_one_read_arrive_whole() {
        let frame = FromRunner::Fault {
            message: "x".repeat(3 * READ_CHUNK_BYTES),
            machine: false,
        };
        let mut bytes = frames::encode(&frame);
        bytes.extend(frames::encode(&STARTED));
        let mut connection = connection(bytes.as_slice());
        assert_eq!(connection.reader.recv().await.unwrap(), frame);
        assert_eq!(connection.reader.recv().await.unwrap(), STARTED);
    }

    #[tokio::test]
    async fn a_sandbox_that_ended_or_speaks_unasked_is_not_quiet() {
        let mut ended = connection(tokio::io::empty());
        assert!(!ended.reader.is_quiet(), "the stream has ended");
        let (mut runner, input) = tokio::io::duplex(1 << 10);
        let mut waiting = connection(input);
        assert!(waiting.reader.is_quiet(), "it waits");
        runner.write_all(&frames::encode(&STARTED)).await.unwrap();
        assert!(!waiting.reader.is_quiet(), "it sent a frame unasked");
    }
}
