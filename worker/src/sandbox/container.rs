//! Handle of one container, independent of the engine that it runs on.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use tokio::task::JoinHandle;

use super::background_tasks::BackgroundTasks;

/// A resource that a container holds. The container keeps one clone until it is removed, and the
/// resource is released when the last clone is dropped.
pub type ContainerResource = Arc<dyn Any + Send + Sync>;

/// Starts the removal of a container in the background. Returns `None` if the process is ending.
type StartRemoval = Box<dyn FnOnce() -> Option<JoinHandle<()>> + Send + Sync>;

/// An existing container. Dropping it removes the container in the background.
pub struct Container {
    name: String,
    /// `None` once the removal has started.
    start_removal: Option<StartRemoval>,
}

impl Container {
    /// Creates the handle of the container `name`. The future of `remove`, which runs in
    /// `background`, removes the container.
    pub fn new<R>(
        name: String,
        background: BackgroundTasks,
        remove: impl FnOnce() -> R + Send + Sync + 'static,
    ) -> Self
    where
        R: Future<Output = ()> + Send + 'static,
    {
        Self {
            name,
            start_removal: Some(Box::new(move || background.spawn(remove()))),
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
