//! The attached streams of a container as a connection to its runner. Docker sends standard output
//! and standard error in one stream of tagged messages; this module separates them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bollard::container::{AttachContainerResults, LogOutput};
use bytes::Bytes;
use futures_util::Stream;
use tokio::io::{AsyncRead, ReadBuf};

use crate::sandbox::runner_connection::{AnyRunnerConnection, RunnerConnection, StderrHead};

/// The messages of an attached container, as Docker's client yields them.
type ContainerOutput =
    Pin<Box<dyn Stream<Item = Result<LogOutput, bollard::errors::Error>> + Send>>;

/// Returns the connection to the runner in an attached container.
pub(super) fn attached_connection(
    container: &str,
    attached: AttachContainerResults,
) -> AnyRunnerConnection {
    let stderr = StderrHead::default();
    let stdout = AttachedStdout {
        container: container.to_owned(),
        messages: attached.output,
        unread: Bytes::new(),
        stderr: stderr.clone(),
    };
    RunnerConnection::new(container, Box::pin(stdout), attached.input, stderr)
}

/// Standard output of an attached container. The first bytes of standard error are kept for error
/// messages.
struct AttachedStdout {
    container: String,
    messages: ContainerOutput,
    /// The rest of the last message on standard output.
    unread: Bytes,
    stderr: StderrHead,
}

impl AsyncRead for AttachedStdout {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            match ready!(self.messages.as_mut().poll_next(context)) {
                Some(Ok(LogOutput::StdOut { message })) => self.unread = message,
                Some(Ok(
                    LogOutput::StdErr { message }
                    | LogOutput::StdIn { message }
                    | LogOutput::Console { message },
                )) => {
                    tracing::debug!(
                        container = %self.container,
                        bytes = message.len(),
                        "runner wrote to standard error"
                    );
                    self.stderr.push(&message);
                }
                Some(Err(source)) => return Poll::Ready(Err(io::Error::other(source))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = self.unread.len().min(buffer.remaining());
        buffer.put_slice(&self.unread.split_to(length));
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::{StreamExt, stream};
    use sandhog_protocol::frames::{self, CallId, FromRunner};

    use super::*;

    const STARTED: FromRunner = FromRunner::Started { id: CallId(1) };

    fn attached(output: ContainerOutput) -> AnyRunnerConnection {
        attached_connection(
            "box",
            AttachContainerResults {
                output,
                input: Box::pin(tokio::io::sink()),
            },
        )
    }

    fn arriving(messages: Vec<LogOutput>) -> AnyRunnerConnection {
        attached(stream::iter(messages.into_iter().map(Ok)).boxed())
    }

    fn stdout(bytes: &[u8]) -> LogOutput {
        LogOutput::StdOut {
            message: Bytes::copy_from_slice(bytes),
        }
    }

    #[tokio::test]
    async fn frames_arrive_in_pieces_between_words_on_standard_error() {
        let bytes = frames::encode(&STARTED);
        let (first, second) = bytes.split_at(3);
        let mut connection = arriving(vec![
            stdout(first),
            LogOutput::StdErr {
                message: Bytes::from_static(b"oh no\n"),
            },
            stdout(second),
        ]);
        assert_eq!(connection.reader.recv().await.unwrap(), STARTED);
        let error = connection.reader.recv().await.unwrap_err();
        assert_eq!(error.to_string(), "sandbox box ended by itself: oh no");
    }

    #[tokio::test]
    async fn standard_error_is_bounded() {
        let loud = LogOutput::StdErr {
            message: Bytes::from(vec![b'x'; 1 << 20]),
        };
        let mut connection = arriving(vec![loud.clone(), loud]);
        let message = connection.reader.recv().await.unwrap_err().to_string();
        assert!(message.len() < 3000, "{} bytes", message.len());
    }

    #[tokio::test]
    async fn a_sandbox_that_ended_or_speaks_unasked_is_not_quiet() {
        assert!(!arriving(vec![]).reader.is_quiet(), "the stream has ended");
        let mut connection = arriving(vec![stdout(&frames::encode(&STARTED))]);
        assert!(!connection.reader.is_quiet(), "it sent a frame unasked");
        let mut waiting = attached(stream::pending().boxed());
        assert!(waiting.reader.is_quiet(), "it waits");
    }
}
