//! One container from create to removed, and the runner in it from started to ready.

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

/// How long a runner may take to say that it is ready.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// How long it may take to import an image's libraries; the runner itself gives up before that.
const WARM_WITHIN: Duration = Duration::from_secs(90);

/// How much of a runner's reason for having no zygote is kept.
const KEPT_OF_REASON: usize = 400;

/// What a container uses: let go when the last clone is dropped, of which the container has one until it is gone.
pub type Held = Arc<dyn Any + Send + Sync>;

/// A container that exists, and is removed when this is dropped.
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
        self.start_holding(image, shape, None).await
    }

    /// As [`Engine::start_shaped`]; `held` is let go when nothing of the container is left, however it ends.
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
        // In a task of its own: a request to create that is dropped half-way leaves a container nobody knows.
        let (engine, image, shape) = (self.clone(), image.clone(), shape.clone());
        let name = self.next_name();
        let starting = tokio::spawn({
            let name = name.clone();
            async move {
                match engine
                    .start_named(name.clone(), image.clone(), &shape, held.clone())
                    .await
                {
                    // It was rebuilt, and this build of it removed, since it was resolved.
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
        // Before it exists: a request that fails may have made it all the same.
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
    match frame_within(READY_WITHIN, name, conversation).await? {
        FromRunner::Ready { version, features } if version == VERSION => Ok(features),
        FromRunner::Ready { version, .. } => Err(SandboxError::RunnerVersion {
            container: name.to_owned(),
            found: version,
        }),
        other => Err(not_expected(name, other)),
    }
}

/// The frame that has the image's zygote started, if it has one.
fn warm_frame(image: &Image) -> Option<ToRunner> {
    let (zygote, harness) = image.contract.zygote()?;
    // An image whose own defaults are above its ceiling runs no job that names none; its zygote is of no use.
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

/// Waits for the zygote, and tells what it changes of what a sandbox has to work with.
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
                // Where cells have no cgroups no image has one, of which `learn` tells once.
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
