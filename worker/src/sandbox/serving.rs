//! A sandbox dedicated to one model server for as long as the server lives.
//!
//! The writer and the reader can be used at the same time: calls are sent while answers arrive. The
//! server's output is hostile: the size of a frame is bounded, and a malformed frame is an error,
//! after which the container must be destroyed.

use bytes::Bytes;
use sandhog_common::id::clip;
use sandhog_runner::model::{self, FromServer, MAX_CALL, MAX_SAID, ToServer};
use sandhog_runner::protocol::{
    Caps, Displays, Fetch, FromRunner, Hurry, Program, Report, Run, ToRunner,
};

use super::container::Container;
use super::conversation::{Ear, Mouth};
use super::run::{KEPT_OF_FAULT, kind};
use super::{Sandbox, SandboxError};

/// Writer half of the connection to a model server.
pub struct ServerMouth {
    mouth: Mouth,
}

/// Reader half of the connection to a model server. Owns the container: dropping it removes the
/// container in the background.
pub struct ServerEar {
    container: Container,
    ear: Ear,
    said: Vec<u8>,
}

/// One event from a model server.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    /// The server sent a frame.
    Said(FromServer),
    /// The server printed this, to standard output or standard error.
    Printed(Bytes),
    /// The server has ended, and its cell is removed.
    Ended(Box<Report>),
}

impl Sandbox {
    /// Starts a model server in this sandbox. From then on the sandbox serves nothing else.
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
        caps: Caps,
    ) -> Result<(ServerMouth, ServerEar), SandboxError> {
        let (container, conversation) = self.into_parts();
        let mut mouth = conversation.mouth;
        let run = Run {
            program: Program::Server { argv },
            stdin: Vec::new(),
            input_json: None,
            env,
            caps,
            files: Vec::new(),
            fetch: Fetch::default(),
            questions: None,
            secrets: Vec::new(),
            displays: Displays::default(),
            hurry: Hurry::AtOnce,
        };
        mouth.say(&ToRunner::Run(Box::new(run))).await?;
        let ear = ServerEar {
            container,
            ear: conversation.ear,
            said: Vec::new(),
        };
        Ok((ServerMouth { mouth }, ear))
    }
}

impl ServerMouth {
    /// Sends one frame to the server.
    ///
    /// # Errors
    /// If the frame is too long, or the container does not accept input.
    ///
    /// # Cancel safety
    /// Not cancel safe: a partly written frame makes the connection unusable.
    pub async fn say(&mut self, frame: &ToServer) -> Result<(), SandboxError> {
        let data = model::encode(frame, MAX_CALL).map_err(|source| SandboxError::Connection {
            container: self.mouth.container().to_owned(),
            source: source.into(),
        })?;
        self.mouth.say(&ToRunner::Say { data }).await
    }
}

impl ServerEar {
    /// Reads the next event from the server.
    ///
    /// # Errors
    /// If the container died, or the container or the server broke its protocol.
    ///
    /// # Cancel safety
    /// Cancel safe: data that has arrived stays in the buffer.
    pub async fn hear(&mut self) -> Result<Heard, SandboxError> {
        loop {
            match model::take(&mut self.said, MAX_SAID) {
                Ok(Some(frame)) => return Ok(Heard::Said(frame)),
                Ok(None) => {}
                Err(source) => {
                    return Err(SandboxError::ModelProtocol {
                        container: self.container.name.clone(),
                        source,
                    });
                }
            }
            match self.ear.hear().await? {
                FromRunner::Said { data } => self.said.extend_from_slice(&data),
                FromRunner::Output { data, .. } => return Ok(Heard::Printed(Bytes::from(data))),
                FromRunner::Done(report) => return Ok(Heard::Ended(report)),
                FromRunner::Started => {}
                FromRunner::Fault { message, machine } => {
                    return Err(SandboxError::Cell {
                        container: self.container.name.clone(),
                        message: clip(&message, KEPT_OF_FAULT),
                        machine,
                    });
                }
                other @ (FromRunner::Ready { .. }
                | FromRunner::Warmed { .. }
                | FromRunner::Display { .. }
                | FromRunner::Ask { .. }
                | FromRunner::Gone { .. }) => {
                    return Err(SandboxError::OutOfTurn {
                        container: self.container.name.clone(),
                        frame: kind(&other),
                    });
                }
            }
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

impl std::fmt::Debug for ServerMouth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerMouth").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for ServerEar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerEar")
            .field("container", &self.container.name)
            .finish_non_exhaustive()
    }
}
