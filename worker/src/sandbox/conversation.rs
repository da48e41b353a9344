//! Framed I/O with one runner, over its container's attached streams.
//!
//! The input is hostile: a runner whose container was escaped from could send anything. The
//! protocol bounds the length of a frame, only the first part of standard error is kept, and bytes
//! that are no valid frame are an error.

use std::fmt;
use std::pin::Pin;

use bollard::container::{AttachContainerResults, LogOutput};
use futures_util::{FutureExt, Stream, StreamExt};
use sandhog_common::id::clip;
use sandhog_runner::protocol::{self, FromRunner, ToRunner};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::SandboxError;

/// Number of bytes of a runner's standard error that are kept for an error message.
const KEPT_OF_STDERR: usize = 2048;

type Incoming = Pin<Box<dyn Stream<Item = Result<LogOutput, bollard::errors::Error>> + Send>>;

/// Both directions of the connection to one runner.
pub(super) struct Conversation {
    pub(super) mouth: Mouth,
    pub(super) ear: Ear,
}

impl Conversation {
    pub(super) fn new(container: &str, attached: AttachContainerResults) -> Self {
        Self {
            mouth: Mouth {
                container: container.to_owned(),
                input: attached.input,
            },
            ear: Ear {
                container: container.to_owned(),
                incoming: attached.output,
                buffer: Vec::new(),
                said: Vec::new(),
            },
        }
    }
}

impl fmt::Debug for Conversation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conversation")
            .field("container", &self.ear.container)
            .field("buffered", &self.ear.buffer.len())
            .finish_non_exhaustive()
    }
}

/// The worker's side of the runner's standard input.
pub(super) struct Mouth {
    container: String,
    input: Pin<Box<dyn AsyncWrite + Send>>,
}

impl Mouth {
    /// The container's name.
    pub(super) fn container(&self) -> &str {
        &self.container
    }

    /// Sends one frame.
    ///
    /// # Cancel safety
    /// Not cancel safe: a partly written frame makes the connection unusable.
    pub(super) async fn say(&mut self, frame: &ToRunner) -> Result<(), SandboxError> {
        let bytes = protocol::encode(frame);
        let sent = async {
            self.input.write_all(&bytes).await?;
            self.input.flush().await
        };
        sent.await.map_err(|source| SandboxError::Connection {
            container: self.container.clone(),
            source: source.into(),
        })
    }
}

/// The worker's side of the runner's standard output and error.
pub(super) struct Ear {
    container: String,
    incoming: Incoming,
    buffer: Vec<u8>,
    said: Vec<u8>,
}

impl Ear {
    /// Reads the next frame.
    ///
    /// # Cancel safety
    /// Cancel safe: the part of a frame that has arrived stays in the buffer.
    pub(super) async fn hear(&mut self) -> Result<FromRunner, SandboxError> {
        loop {
            match protocol::take(&mut self.buffer) {
                Ok(Some(frame)) => return Ok(frame),
                Ok(None) => {}
                Err(source) => {
                    return Err(SandboxError::Protocol {
                        container: self.container.clone(),
                        source,
                    });
                }
            }
            let arrived = self.incoming.next().await;
            self.keep(arrived)?;
        }
    }

    /// Returns whether no data has arrived since the last frame and the stream is still open. An
    /// idle sandbox must not send anything.
    pub(super) fn is_quiet(&mut self) -> bool {
        while let Some(arrived) = self.incoming.next().now_or_never() {
            if self.keep(arrived).is_err() {
                return false;
            }
        }
        self.buffer.is_empty()
    }

    /// Returns what the runner wrote to standard error, preceded by a colon, for an error message.
    /// Returns an empty string if it wrote nothing.
    pub(super) fn said(&self) -> String {
        let text = String::from_utf8_lossy(&self.said);
        match text.trim() {
            "" => String::new(),
            said => format!(": {}", clip(said, KEPT_OF_STDERR)),
        }
    }

    fn keep(
        &mut self,
        arrived: Option<Result<LogOutput, bollard::errors::Error>>,
    ) -> Result<(), SandboxError> {
        match arrived {
            Some(Ok(LogOutput::StdOut { message })) => self.buffer.extend_from_slice(&message),
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
                let room = KEPT_OF_STDERR.saturating_sub(self.said.len());
                self.said.extend(message.iter().take(room));
            }
            Some(Err(source)) => {
                return Err(SandboxError::Connection {
                    container: self.container.clone(),
                    source: source.into(),
                });
            }
            None => {
                return Err(SandboxError::Died {
                    container: self.container.clone(),
                    said: self.said(),
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::stream;

    use super::*;

    fn conversation(arriving: Vec<LogOutput>) -> Conversation {
        Conversation::new(
            "box",
            AttachContainerResults {
                output: stream::iter(arriving.into_iter().map(Ok)).boxed(),
                input: Box::pin(tokio::io::sink()),
            },
        )
    }

    fn stdout(bytes: &[u8]) -> LogOutput {
        LogOutput::StdOut {
            message: Bytes::copy_from_slice(bytes),
        }
    }

    #[tokio::test]
    async fn frames_arrive_in_pieces_between_words_on_standard_error() {
        let bytes = protocol::encode(&FromRunner::Started);
        let (first, second) = bytes.split_at(3);
        let mut heard = conversation(vec![
            stdout(first),
            LogOutput::StdErr {
                message: Bytes::from_static(b"oh no\n"),
            },
            stdout(second),
        ]);
        assert_eq!(heard.ear.hear().await.unwrap(), FromRunner::Started);
        let error = heard.ear.hear().await.unwrap_err();
        assert_eq!(error.to_string(), "sandbox box ended by itself: oh no");
    }

    #[tokio::test]
    async fn what_is_no_frame_is_an_error() {
        let mut heard = conversation(vec![stdout(&[0xff; 64])]);
        assert!(matches!(
            heard.ear.hear().await,
            Err(SandboxError::Protocol { .. })
        ));
    }

    #[tokio::test]
    async fn standard_error_is_bounded() {
        let loud = LogOutput::StdErr {
            message: Bytes::from(vec![b'x'; 1 << 20]),
        };
        let mut heard = conversation(vec![loud.clone(), loud]);
        let said = heard.ear.hear().await.unwrap_err().to_string();
        assert!(said.len() < 3000, "{} bytes", said.len());
    }

    #[tokio::test]
    async fn a_sandbox_that_ended_or_speaks_unasked_is_not_quiet() {
        assert!(!conversation(vec![]).ear.is_quiet(), "the stream has ended");
        let mut heard = conversation(vec![stdout(&protocol::encode(&FromRunner::Started))]);
        assert!(!heard.ear.is_quiet(), "it sent a frame unasked");
        let mut heard = conversation(vec![]);
        heard.ear.incoming = stream::pending().boxed();
        assert!(heard.ear.is_quiet(), "it waits");
    }
}
