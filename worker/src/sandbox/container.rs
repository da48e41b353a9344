//! Lifecycle of one container, from creation to removal, and of its runner, from start to ready.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use bollard::errors::Error as DockerError;
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, StartContainerOptions,
};
use sandhog_common::id::clip;
use sandhog_common::units::Millis;
use sandhog_runner::protocol::{CgroupSupport, Features, FromRunner, ToRunner, VERSION, Warm};

use super::bounds::caps;
use super::conversation::Conversation;
use super::{Engine, Image, Sandbox, SandboxError, Shape, spec};

/// Timeout for a runner to report that it is ready.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// Timeout for a runner to start the zygote and import an image's libraries. The runner's own
/// timeout is shorter.
const WARM_WITHIN: Duration = Duration::from_secs(90);

/// Maximum length of a runner's reason for having no zygote, in characters.
const KEPT_OF_REASON: usize = 400;

/// A resource that a container holds. The container keeps one clone until it is removed, and the
/// resource is released when the last clone is dropped.
pub type Held = Arc<dyn Any + Send + Sync>;

/// An existing container. Dropping it removes the container.
#[derive(Debug)]
pub(super) struct Container {
    engine: Engine,
    pub(super) name: String,
    kept: bool,
    held: Option<Held>,
}

impl Container {
    /// Removes the container and waits for it.
    ///
    /// # Cancel safety
    /// Cancel safe: the removal goes on in the background.
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
        let held = self.held.take();
        self.engine.finish_later(async move {
            engine.discard(&name).await;
            drop(held);
        })
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        drop(self.remove_in_background());
    }
}

impl Engine {
    /// Starts a container from `image` with the default shape, and waits until its runner can take
    /// a job.
    ///
    /// # Errors
    /// As [`Engine::start_shaped`].
    ///
    /// # Cancel safety
    /// As [`Engine::start_shaped`].
    pub async fn start(&self, image: &Image) -> Result<Sandbox, SandboxError> {
        self.start_shaped(image, &self.shape(image)).await
    }

    /// Starts a container from `image` with the given shape, and waits until its runner can take a
    /// job.
    ///
    /// # Errors
    /// If the engine rejects a request or the runner is not ready in time. In that case no
    /// container is left behind.
    ///
    /// # Cancel safety
    /// Dropping the future removes the container in the background.
    pub async fn start_shaped(
        &self,
        image: &Image,
        shape: &Shape,
    ) -> Result<Sandbox, SandboxError> {
        self.start_holding(image, shape, None).await
    }

    /// Same as [`Engine::start_shaped`]; `held` is released once the container is removed, however
    /// it ends.
    ///
    /// # Errors
    /// As [`Engine::start_shaped`].
    ///
    /// # Cancel safety
    /// As [`Engine::start_shaped`].
    pub async fn start_holding(
        &self,
        image: &Image,
        shape: &Shape,
        held: Option<Held>,
    ) -> Result<Sandbox, SandboxError> {
        self.facts().require(&shape.runtime)?;
        // In a separate task: dropping a create request half-way would leave a container that no
        // worker tracks.
        let (engine, image, shape) = (self.clone(), image.clone(), shape.clone());
        let name = self.next_name();
        let starting = tokio::spawn({
            let name = name.clone();
            async move {
                match engine
                    .start_named(name.clone(), image.clone(), &shape, held.clone())
                    .await
                {
                    // The image was rebuilt since it was resolved, and the old build was removed.
                    Err(error) if is_missing(&error) => {
                        engine.forget(&image.name);
                        let rebuilt = engine.resolve(&image.name).await?;
                        engine.start_named(name, rebuilt, &shape, held).await
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
        held: Option<Held>,
    ) -> Result<Sandbox, SandboxError> {
        let failed = |step, source: DockerError| SandboxError::Engine {
            step,
            subject: name.clone(),
            source: source.into(),
        };
        let body = spec::container(
            shape,
            self.attach(),
            self.facts(),
            self.owner_labels(),
            self.worker(),
            &image,
        );
        let options = CreateContainerOptionsBuilder::new().name(&name).build();
        // Before the container exists: a create request that fails may have created it
        // nevertheless.
        let container = Container {
            engine: self.clone(),
            name: name.clone(),
            kept: true,
            held,
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
        let mut features = ready(&name, &mut conversation).await?;
        if let Some(frame) = warm_frame(&image) {
            conversation.mouth.say(&frame).await?;
            warmed(&name, &mut conversation, &mut features).await?;
        }
        self.learn(&shape.runtime, &features);
        tracing::debug!(
            container = %name,
            image = %image.name,
            digest = %image.digest,
            "sandbox ready"
        );
        Ok(Sandbox::new(container, conversation, image, features))
    }
}

/// Returns whether the engine answered that the requested object does not exist.
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
    match frame_within(READY_WITHIN, name, conversation).await? {
        FromRunner::Ready { version, features } if version == VERSION => Ok(features),
        FromRunner::Ready { version, .. } => Err(SandboxError::RunnerVersion {
            container: name.to_owned(),
            found: version,
        }),
        other => Err(not_expected(name, other)),
    }
}

/// Returns the frame that starts the image's zygote; `None` if the image has none.
fn warm_frame(image: &Image) -> Option<ToRunner> {
    let (zygote, harness) = image.contract.zygote()?;
    // If the image's default limits exceed its own ceiling, jobs without limits cannot run, and a
    // zygote would be useless.
    let limits = image.contract.default_limits().ok()?;
    let env = image.contract.env.clone();
    Some(ToRunner::Warm(Box::new(Warm {
        harness: harness.to_vec(),
        argv: zygote.argv.clone(),
        env: env.into_iter().collect(),
        imports: zygote.imports.clone(),
        caps: caps(&limits),
    })))
}

/// Waits until the zygote is ready, and updates the sandbox's features.
async fn warmed(
    name: &str,
    conversation: &mut Conversation,
    features: &mut Features,
) -> Result<(), SandboxError> {
    match frame_within(WARM_WITHIN, name, conversation).await? {
        FromRunner::Warmed {
            missing,
            memory_bytes,
        } => {
            features.memory_bytes = memory_bytes;
            if let Some(reason) = missing {
                let reason = clip(&reason, KEPT_OF_REASON);
                // Without cgroups for cells, no image has a zygote; `learn` logs that once.
                if features.cgroup == CgroupSupport::None {
                    tracing::debug!(container = %name, reason, "programs start cold");
                } else {
                    tracing::warn!(container = %name, reason, "programs start cold");
                }
                let missing = format!("no warm interpreter: {reason}");
                features.missing.push(missing);
            }
            Ok(())
        }
        other => Err(not_expected(name, other)),
    }
}

async fn frame_within(
    patience: Duration,
    name: &str,
    conversation: &mut Conversation,
) -> Result<FromRunner, SandboxError> {
    match tokio::time::timeout(patience, conversation.ear.hear()).await {
        Ok(heard) => heard,
        Err(_elapsed) => Err(SandboxError::NotReady {
            container: name.to_owned(),
            within: Millis::from(patience),
            said: conversation.ear.said(),
        }),
    }
}

fn not_expected(name: &str, frame: FromRunner) -> SandboxError {
    match frame {
        FromRunner::Fault { message, machine } => SandboxError::Cell {
            container: name.to_owned(),
            message,
            machine,
        },
        other => SandboxError::OutOfTurn {
            container: name.to_owned(),
            frame: super::run::kind(&other),
        },
    }
}
