//! A sandbox given over to one model server, for as long as that lives.
//!
//! Both halves may be used at once: calls go out while answers come in. What the server says is hostile: frames are
//! bounded, and one that does not read is an error, after which the container must go.

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

/// The half that speaks to a model server.
pub struct ServerMouth {
    mouth: Mouth,
}

/// The half that hears a model server, and has its container: dropping it removes that in the background.
pub struct ServerEar {
    container: Container,
    ear: Ear,
    said: Vec<u8>,
}

/// What comes of a model server.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    /// It says this.
    Said(FromServer),
    /// It printed this, to either stream.
    Printed(Bytes),
    /// It ended, and its cell with it.
    Ended(Box<Report>),
}

impl Sandbox {
    /// Starts a model server in this sandbox, which can be used for nothing else from then on.
    ///
    /// # Errors
    /// When the container does not listen.
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
    /// Says one thing to the server.
    ///
    /// # Errors
    /// When it is too long for a frame, or the container does not listen.
    ///
    /// # Cancel safety
    /// Not cancel safe: half a frame ends the conversation.
    pub async fn say(&mut self, frame: &ToServer) -> Result<(), SandboxError> {
        let data = model::encode(frame, MAX_CALL).map_err(|source| SandboxError::Connection {
            container: self.mouth.container().to_owned(),
            source: source.into(),
        })?;
        self.mouth.say(&ToRunner::Say { data }).await
    }
}

impl ServerEar {
    /// The next thing that comes of the server.
    ///
    /// # Errors
    /// When the container died, or it or the server broke its protocol.
    ///
    /// # Cancel safety
    /// Safe: what has arrived is kept.
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

    /// Kills and removes the container, and waits for it.
    ///
    /// # Cancel safety
    /// Safe: the removal goes on without it.
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
