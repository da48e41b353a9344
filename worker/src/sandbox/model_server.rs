//! A sandbox dedicated to one model server for as long as the server lives.
//!
//! The writer and the reader can be used at the same time: calls are sent while answers arrive. The
//! server's output is hostile: the size of a frame is bounded, and a malformed frame is an error,
//! after which the container must be destroyed.

use bytes::Bytes;
use sandhog_core::id::clip;
use sandhog_protocol::frames::{CallReport, FromRunner, Program, ToRunner};
use sandhog_protocol::model::{self, FromServer, MAX_MODEL_CALL, MAX_MODEL_OUTPUT, ToServer};

use super::container::Container;
use super::run::ONLY_CALL;
use super::runner_connection::{AnyReader, AnyWriter, FrameReader, FrameWriter, describe_frame};
use super::sandbox::MAX_FAULT_LENGTH;
use super::{Run, RunCaps, Sandbox, SandboxError};

/// Writer half of the connection to a model server.
pub struct ModelWriter {
    writer: FrameWriter<AnyWriter>,
}

/// Reader half of the connection to a model server. Owns the container: dropping it removes the
/// container in the background.
pub struct ModelReader {
    container: Container,
    reader: FrameReader<AnyReader>,
    frame_bytes: Vec<u8>,
}

/// One event from a model server.
#[derive(Debug, Clone, PartialEq)]
pub enum ModelServerEvent {
    /// The server sent a frame.
    Frame(FromServer),
    /// The server printed this, to standard output or standard error.
    Printed(Bytes),
    /// The server has ended, and every process of its cell is dead.
    Ended(Box<CallReport>),
}

impl Sandbox {
    /// Starts a model server in this sandbox. From then on the sandbox serves nothing else. The
    /// server's cell is never closed: at its end, the container is destroyed.
    ///
    /// # Errors
    /// If the container does not accept input.
    ///
    /// # Cancel safety
    /// Dropping the future removes the container in the background.
    pub async fn serve(
        self,
        argv: Vec<String>,
        env: Vec<(String, String)>,
        caps: RunCaps,
    ) -> Result<(ModelWriter, ModelReader), SandboxError> {
        let (container, connection) = self.into_parts();
        let mut writer = connection.writer;
        let run = Run {
            env,
            ..Run::new(Program::Server { argv }, caps)
        };
        let [open, call, _close] = run.into_frames();
        writer.send(&[open, call]).await?;
        let reader = ModelReader {
            container,
            reader: connection.reader,
            frame_bytes: Vec::new(),
        };
        Ok((ModelWriter { writer }, reader))
    }
}

impl ModelWriter {
    /// Sends one frame to the server.
    ///
    /// # Errors
    /// If the frame is too long, or the container does not accept input.
    ///
    /// # Cancel safety
    /// Not cancel safe: a partly written frame makes the connection unusable.
    pub async fn send(&mut self, frame: &ToServer) -> Result<(), SandboxError> {
        let data =
            model::encode(frame, MAX_MODEL_CALL).map_err(|source| SandboxError::Connection {
                container: self.writer.container().to_owned(),
                source: source.into(),
            })?;
        let id = ONLY_CALL;
        self.writer.send(&[ToRunner::ModelInput { id, data }]).await
    }
}

impl ModelReader {
    /// Reads the next event from the server.
    ///
    /// # Errors
    /// If the container died, or the container or the server broke its protocol.
    ///
    /// # Cancel safety
    /// Cancel safe: data that has arrived stays in the buffer.
    pub async fn recv(&mut self) -> Result<ModelServerEvent, SandboxError> {
        loop {
            match model::take(&mut self.frame_bytes, MAX_MODEL_OUTPUT) {
                Ok(Some(frame)) => return Ok(ModelServerEvent::Frame(frame)),
                Ok(None) => {}
                Err(source) => {
                    return Err(SandboxError::ModelProtocol {
                        container: self.container.name().to_owned(),
                        source,
                    });
                }
            }
            let frame = self.reader.recv().await?;
            if frame.call().is_some_and(|call| call != ONLY_CALL) {
                return Err(self.protocol_violation(&frame));
            }
            match frame {
                FromRunner::ModelOutput { data, .. } => self.frame_bytes.extend_from_slice(&data),
                FromRunner::Output { data, .. } => {
                    return Ok(ModelServerEvent::Printed(Bytes::from(data)));
                }
                FromRunner::CallEnded { report, .. } => return Ok(ModelServerEvent::Ended(report)),
                FromRunner::Started { .. } => {}
                FromRunner::Fault { message, machine } => {
                    return Err(SandboxError::Cell {
                        container: self.container.name().to_owned(),
                        message: clip(&message, MAX_FAULT_LENGTH),
                        machine,
                    });
                }
                other @ (FromRunner::Ready { .. }
                | FromRunner::ZygoteReady { .. }
                | FromRunner::Display { .. }
                | FromRunner::InferRequest { .. }
                | FromRunner::CellEnded(_)
                | FromRunner::CellClosed { .. }) => return Err(self.protocol_violation(&other)),
            }
        }
    }

    fn protocol_violation(&self, frame: &FromRunner) -> SandboxError {
        SandboxError::ProtocolViolation {
            container: self.container.name().to_owned(),
            frame: describe_frame(frame),
        }
    }

    /// Kills and removes the container, and waits for the removal.
    ///
    /// # Cancel safety
    /// Cancel safe: the removal goes on in the background.
    pub async fn destroy(self) {
        self.container.remove().await;
    }
}

impl std::fmt::Debug for ModelWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModelWriter").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for ModelReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModelReader")
            .field("container", &self.container.name())
            .finish_non_exhaustive()
    }
}
