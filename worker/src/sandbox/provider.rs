//! The interface between the worker and a provider of sandboxes, such as a container engine.
//!
//! A provider implements [`SandboxProvider`] and [`ImageStore`], and [`ImageBuilder`] if it can
//! build images. [`Sandboxes`](super::Sandboxes) adds the parts that are the same for every
//! provider: the choice of shapes, the cache of images and the tasks in the background.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use sandhog_core::id::{ImageName, WorkerId};

use super::background_tasks::BackgroundTasks;
use super::image_builder::ImageBuilder;
use super::keepers::KeeperReport;
use super::{ContainerResource, EngineFacts, Image, Sandbox, SandboxError, Shape, StoredImage};

/// A provider that starts and removes the sandboxes of one worker.
#[async_trait]
pub trait SandboxProvider: Debug + Send + Sync {
    /// Starts a container from `image` with the given shape, and waits until its runner can take a
    /// job. `resource` is released once the container is removed, however it ends.
    ///
    /// If the build of `image` is gone because the image was rebuilt, the provider starts the
    /// present build of the same name. [`Sandbox::image`] returns the build that was started.
    ///
    /// # Errors
    /// If the provider rejects a request or the runner is not ready in time. In that case no
    /// container is left behind.
    ///
    /// # Cancel safety
    /// Dropping the future removes the container in the background.
    async fn start(
        &self,
        image: &Image,
        shape: &Shape,
        resource: Option<ContainerResource>,
    ) -> Result<Sandbox, SandboxError>;

    /// Removes the containers of this namespace whose worker is neither in `alive` nor this worker.
    /// Returns their number.
    ///
    /// # Errors
    /// If the provider does not answer.
    async fn reap(&self, alive: &[WorkerId]) -> Result<usize, SandboxError>;

    /// Returns whether the container of that name ended because it ran out of memory.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    async fn oom_of(&self, container: &str) -> bool;

    /// Begins the removal of all that the provider keeps beside its sandboxes. Called when no
    /// further sandbox is started; the end of the removals is that of the background tasks.
    async fn close(&self) {}

    /// Returns the keepers that make the sandboxes now. Empty for a provider without keepers.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    async fn keepers(&self) -> Vec<KeeperReport> {
        Vec::new()
    }

    /// The facts about the provider and its machine, as read when connecting.
    fn facts(&self) -> &EngineFacts;
}

/// A store of images that sandboxes are started from.
#[async_trait]
pub trait ImageStore: Debug + Send + Sync {
    /// Looks up the image that a job names. The result is not cached.
    ///
    /// # Errors
    /// [`SandboxError::UnknownImage`], [`SandboxError::NoKeeperOfImage`],
    /// [`SandboxError::NoContract`], [`SandboxError::BadContract`] and
    /// [`SandboxError::UnusableImage`] are the submitter's fault; all others are the service's.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    async fn look_up(&self, name: &ImageName) -> Result<Image, SandboxError>;

    /// Returns every image that has a contract, once for each name that a job may use for it.
    ///
    /// # Errors
    /// If the store does not answer.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    async fn list(&self) -> Result<Vec<StoredImage>, SandboxError>;
}

/// The parts of a provider that is connected.
#[derive(Debug, Clone)]
pub struct ProviderParts {
    /// Starts and removes sandboxes.
    pub sandboxes: Arc<dyn SandboxProvider>,
    /// Finds the images.
    pub images: Arc<dyn ImageStore>,
    /// Builds images; `None` if this provider cannot.
    pub builder: Option<Arc<dyn ImageBuilder>>,
    /// The tasks in which the provider removes its containers.
    pub background: BackgroundTasks,
}
