//! Handle of one container, independent of the engine that it runs on.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use tokio::task::JoinHandle;

/// A resource that a container holds. The container keeps one clone until it is removed, and the
/// resource is released when the last clone is dropped.
pub type ContainerResource = Arc<dyn Any + Send + Sync>;

/// One container of this namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerInfo {
    /// The engine's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The worker that made it, as its label says.
    pub worker: String,
    /// The image's short name, as its label says.
    pub image: String,
    /// The engine's word for its state, such as `running`.
    pub state: String,
}

/// Starts the removal of a container in the background. Returns `None` if the process is ending.
type StartRemoval = Box<dyn FnOnce() -> Option<JoinHandle<()>> + Send + Sync>;

/// An existing container. Dropping it removes the container.
pub(super) struct Container {
    name: String,
    /// `None` once the removal has started.
    start_removal: Option<StartRemoval>,
}

impl Container {
    /// Creates the handle of the container `name`, which `start_removal` removes.
    pub(super) fn new(
        name: String,
        start_removal: impl FnOnce() -> Option<JoinHandle<()>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            name,
            start_removal: Some(Box::new(start_removal)),
        }
    }

    /// The container's name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

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

    fn remove_in_background(&mut self) -> Option<JoinHandle<()>> {
        self.start_removal.take().and_then(|start| start())
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        drop(self.remove_in_background());
    }
}

impl fmt::Debug for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Container")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
