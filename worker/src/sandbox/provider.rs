//! The interface between the worker and a container engine.
//!
//! Docker's [`Engine`](super::Engine) implements it. Most of the worker uses that type directly,
//! because a type parameter would spread over the pool, the executor and the daemon; the checks of
//! `doctor` and of images use the traits.

use sandhog_core::id::ImageName;

use super::{ContainerResource, EngineFacts, Image, Sandbox, SandboxError, Shape, StoredImage};

/// A container engine that starts and removes sandboxes.
pub trait SandboxProvider: Send + Sync {
    /// Starts a container from `image` with the given shape, and waits until its runner can take a
    /// job. `resource` is released once the container is removed, however it ends.
    ///
    /// # Errors
    /// If the engine rejects a request or the runner is not ready in time. In that case no
    /// container is left behind.
    ///
    /// # Cancel safety
    /// Dropping the future removes the container in the background.
    fn start(
        &self,
        image: &Image,
        shape: &Shape,
        resource: Option<ContainerResource>,
    ) -> impl Future<Output = Result<Sandbox, SandboxError>> + Send;

    /// Returns the shape of this image's containers where cells have caps of their own.
    fn shape(&self, image: &Image) -> Shape;

    /// Removes every container of this worker. Returns their number.
    ///
    /// # Errors
    /// If the engine does not answer.
    fn reap(&self) -> impl Future<Output = Result<usize, SandboxError>> + Send;

    /// The facts about the engine and its machine.
    fn facts(&self) -> &EngineFacts;

    /// Returns whether the container of that name ended because it ran out of memory.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    fn oom_of(&self, container: &str) -> impl Future<Output = bool> + Send;
}

/// A store of images that sandboxes are started from.
pub trait ImageStore: Send + Sync {
    /// Resolves the image that a job names.
    ///
    /// # Errors
    /// [`SandboxError::UnknownImage`], [`SandboxError::NoContract`], [`SandboxError::BadContract`]
    /// and [`SandboxError::UnusableImage`] are the submitter's fault; all others are the engine's.
    fn resolve(&self, name: &ImageName)
    -> impl Future<Output = Result<Image, SandboxError>> + Send;

    /// Returns every image that carries `label`.
    ///
    /// # Errors
    /// If the engine does not answer.
    fn list(
        &self,
        label: &str,
    ) -> impl Future<Output = Result<Vec<StoredImage>, SandboxError>> + Send;
}
