//! Start of a container: its creation, its streams, and the start of its runner.

use bollard::errors::Error as DockerError;
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, StartContainerOptions,
};

use super::Engine;
use super::attach::attached_connection;
use super::container_spec::container_spec;
use crate::sandbox::container::Container;
use crate::sandbox::handshake::handshake;
use crate::sandbox::{ContainerResource, Image, Sandbox, SandboxError, Shape};

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
        self.start_with_resource(image, shape, None).await
    }

    /// Same as [`Engine::start_shaped`]; `resource` is released once the container is removed,
    /// however it ends.
    ///
    /// # Errors
    /// As [`Engine::start_shaped`].
    ///
    /// # Cancel safety
    /// As [`Engine::start_shaped`].
    pub async fn start_with_resource(
        &self,
        image: &Image,
        shape: &Shape,
        resource: Option<ContainerResource>,
    ) -> Result<Sandbox, SandboxError> {
        self.facts().require_runtime(&shape.runtime)?;
        // In a separate task: dropping a create request half-way would leave a container that no
        // worker tracks.
        let (engine, image, shape) = (self.clone(), image.clone(), shape.clone());
        let name = self.next_name();
        let starting = tokio::spawn({
            let name = name.clone();
            async move {
                match engine
                    .start_named(name.clone(), image.clone(), &shape, resource.clone())
                    .await
                {
                    // The image was rebuilt since it was resolved, and the old build was removed.
                    Err(error) if is_missing(&error) => {
                        engine.images().remove(&image.name);
                        let rebuilt = engine.resolve(&image.name).await?;
                        engine.start_named(name, rebuilt, &shape, resource).await
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
        resource: Option<ContainerResource>,
    ) -> Result<Sandbox, SandboxError> {
        let failed = |step, source: DockerError| SandboxError::Engine {
            step,
            subject: name.clone(),
            source: source.into(),
        };
        let body = container_spec(
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
        let container = Container::new(name.clone(), {
            let (engine, name) = (self.clone(), name.clone());
            move || {
                let tracker = engine.clone();
                tracker.spawn_background(async move {
                    engine.discard(&name).await;
                    drop(resource);
                })
            }
        });
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
        let mut connection = attached_connection(&name, attached);
        let features = handshake(&mut connection, &image).await?;
        self.shapes().record_features(&shape.runtime, &features);
        tracing::debug!(
            container = %name,
            image = %image.name,
            digest = %image.digest,
            "sandbox ready"
        );
        Ok(Sandbox::new(container, connection, image, features))
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
