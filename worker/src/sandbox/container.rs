//! One container from create to removed, and the runner in it from started to ready.

use std::time::Duration;

use bollard::errors::Error as DockerError;
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, StartContainerOptions,
};
use sandhog_common::units::Millis;
use sandhog_runner::protocol::{Features, FromRunner, VERSION};

use super::conversation::Conversation;
use super::{Engine, Image, Sandbox, SandboxError, Shape, spec};

/// How long a runner may take to say that it is ready.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// A container that exists, and is removed when this is dropped.
#[derive(Debug)]
pub(super) struct Container {
    engine: Engine,
    pub(super) name: String,
    kept: bool,
}

impl Container {
    /// Removes the container and waits for it.
    ///
    /// # Cancel safety
    /// Safe: the removal goes on without it.
    pub(super) async fn remove(mut self) {
        if let Some(removal) = self.remove_in_background()
            && let Err(error) = removal.await
        {
            tracing::warn!(container = %self.name, %error, "container left for the reaper");
        }
    }

    fn remove_in_background(&mut self) -> Option<tokio::task::JoinHandle<()>> {
        if !std::mem::take(&mut self.kept) {
            return None;
        }
        let (engine, name) = (self.engine.clone(), self.name.clone());
        self.engine
            .finish_later(async move { engine.discard(&name).await })
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        drop(self.remove_in_background());
    }
}

impl Engine {
    /// Starts a container from `image`, made as for any job, and waits until its runner can take one.
    ///
    /// # Errors
    /// As [`Engine::start_shaped`].
    ///
    /// # Cancel safety
    /// As [`Engine::start_shaped`].
    pub async fn start(&self, image: &Image) -> Result<Sandbox, SandboxError> {
        self.start_shaped(image, &self.shape(image)).await
    }

    /// Starts a container from `image` in this shape and waits until its runner can take a job.
    ///
    /// # Errors
    /// When the engine refuses, or the runner is not ready in time; nothing is left behind then.
    ///
    /// # Cancel safety
    /// Dropping the future removes the container in the background.
    pub async fn start_shaped(
        &self,
        image: &Image,
        shape: &Shape,
    ) -> Result<Sandbox, SandboxError> {
        self.facts().require(&shape.runtime)?;
        // In a task of its own: a request to create that is dropped half-way leaves a container nobody knows.
        let (engine, image, shape) = (self.clone(), image.clone(), shape.clone());
        let name = self.next_name();
        let starting = tokio::spawn({
            let name = name.clone();
            async move {
                match engine
                    .start_named(name.clone(), image.clone(), &shape)
                    .await
                {
                    // It was rebuilt, and this build of it removed, since it was resolved.
                    Err(error) if is_missing(&error) => {
                        engine.forget(&image.name);
                        let rebuilt = engine.resolve(&image.name).await?;
                        engine.start_named(name, rebuilt, &shape).await
                    }
                    ended => ended,
                }
            }
        });
        match starting.await {
            Ok(started) => started,
            Err(source) => Err(SandboxError::Engine {
                step: "start container",
                subject: name,
                source: source.into(),
            }),
        }
    }

    async fn start_named(
        &self,
        name: String,
        image: Image,
        shape: &Shape,
    ) -> Result<Sandbox, SandboxError> {
        let failed = |step, source: DockerError| SandboxError::Engine {
            step,
            subject: name.clone(),
            source: source.into(),
        };
        let body = spec::container(
            shape,
            self.facts(),
            self.owner_labels(),
            self.worker(),
            &image,
        );
        let options = CreateContainerOptionsBuilder::new().name(&name).build();
        // Before it exists: a request that fails may have made it all the same.
        let container = Container {
            engine: self.clone(),
            name: name.clone(),
            kept: true,
        };
        self.docker()
            .create_container(Some(options), body)
            .await
            .map_err(|source| failed("create container", source))?;
        let options = AttachContainerOptionsBuilder::new()
            .stream(true)
            .stdin(true)
            .stdout(true)
            .stderr(true)
            .build();
        let attached = self
            .docker()
            .attach_container(&name, Some(options))
            .await
            .map_err(|source| failed("attach to container", source))?;
        self.docker()
            .start_container(&name, None::<StartContainerOptions>)
            .await
            .map_err(|source| failed("start container", source))?;
        let mut conversation = Conversation::new(&name, attached);
        let features = ready(&name, &mut conversation).await?;
        self.learn(&shape.runtime, &features);
        tracing::debug!(container = %name, image = %image.name, digest = %image.digest, "sandbox ready");
        Ok(Sandbox::new(container, conversation, image, features))
    }
}

/// Whether the engine says that what was asked for does not exist.
fn is_missing(error: &SandboxError) -> bool {
    let SandboxError::Engine { source, .. } = error else {
        return false;
    };
    matches!(
        source.downcast_ref::<DockerError>(),
        Some(DockerError::DockerResponseServerError {
            status_code: 404,
            ..
        })
    )
}

/// Waits for the runner's first frame.
async fn ready(name: &str, conversation: &mut Conversation) -> Result<Features, SandboxError> {
    match tokio::time::timeout(READY_WITHIN, conversation.ear.hear()).await {
        Ok(Ok(FromRunner::Ready { version, features })) if version == VERSION => Ok(features),
        Ok(Ok(FromRunner::Ready { version, .. })) => Err(SandboxError::RunnerVersion {
            container: name.to_owned(),
            found: version,
        }),
        Ok(Ok(FromRunner::Fault { message })) => Err(SandboxError::Cell {
            container: name.to_owned(),
            message,
        }),
        Ok(Ok(other @ (FromRunner::Started | FromRunner::Output { .. } | FromRunner::Done(_)))) => {
            Err(SandboxError::OutOfTurn {
                container: name.to_owned(),
                frame: super::run::kind(&other),
            })
        }
        Ok(Err(error)) => Err(error),
        Err(_elapsed) => Err(SandboxError::NotReady {
            container: name.to_owned(),
            within: Millis::from(READY_WITHIN),
            said: conversation.ear.said(),
        }),
    }
}
