//! Start of a container: its creation, its streams, and the start of its runner.

use bollard::container::AttachContainerResults;
use bollard::errors::Error as DockerError;
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{
    AttachContainerOptions, AttachContainerOptionsBuilder, CreateContainerOptionsBuilder,
    StartContainerOptions,
};

use super::Engine;
use super::attach::attached_connection;
use super::container_spec::container_spec;
use crate::sandbox::container::Container;
use crate::sandbox::open_sandbox::open_connected;
use crate::sandbox::{ContainerResource, Image, Sandbox, SandboxError, Shape};

impl Engine {
    /// Starts a container from `image` with the given shape, and waits until its runner can take a
    /// job. `resource` is released once the container is removed, however it ends.
    ///
    /// # Errors
    /// If the engine rejects a request or the runner is not ready in time. In that case no
    /// container is left behind.
    ///
    /// # Cancel safety
    /// Dropping the future removes the container in the background.
    pub(super) async fn start_with_resource(
        &self,
        image: &Image,
        shape: &Shape,
        resource: Option<ContainerResource>,
    ) -> Result<Sandbox, SandboxError> {
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
                        let rebuilt = engine.look_up(&image.name).await?;
                        engine.start_named(name, rebuilt, &shape, resource).await
                    }
                    ended => ended,
                }
            }
        });
        match starting.await {
            Ok(started) => started,
            Err(source) => Err(SandboxError::EngineRequest {
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
        let body = container_spec(
            shape,
            self.attach(),
            self.facts(),
            self.owner_labels(),
            self.worker(),
            &image,
        );
        // Before the container exists: a create request that fails may have created it
        // nevertheless.
        let container = Container::new(name.clone(), self.background().clone(), {
            let (engine, name) = (self.clone(), name.clone());
            move || async move {
                engine.discard(&name).await;
                drop(resource);
            }
        });
        let options = AttachContainerOptionsBuilder::new()
            .stream(true)
            .stdin(true)
            .stdout(true)
            .stderr(true)
            .build();
        let attached = self.create_and_start(&name, body, options).await?;
        open_connected(container, attached_connection(&name, attached), image).await
    }

    /// Creates a container of that name, attaches to its streams, and starts it.
    ///
    /// # Errors
    /// If the engine rejects a request. A container may exist then; the caller removes it.
    pub(super) async fn create_and_start(
        &self,
        name: &str,
        body: ContainerCreateBody,
        streams: AttachContainerOptions,
    ) -> Result<AttachContainerResults, SandboxError> {
        let failed = |step, source: DockerError| SandboxError::EngineRequest {
            step,
            subject: name.to_owned(),
            source: source.into(),
        };
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        self.docker()
            .create_container(Some(options), body)
            .await
            .map_err(|source| failed("create container", source))?;
        let attached = self
            .docker()
            .attach_container(name, Some(streams))
            .await
            .map_err(|source| failed("attach to container", source))?;
        self.docker()
            .start_container(name, None::<StartContainerOptions>)
            .await
            .map_err(|source| failed("start container", source))?;
        Ok(attached)
    }
}

/// Returns whether the engine answered that the requested object does not exist.
pub(super) fn is_missing(error: &SandboxError) -> bool {
    let SandboxError::EngineRequest { source, .. } = error else {
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
