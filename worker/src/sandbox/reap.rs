//! Removing what dead workers left behind.

use sandhog_common::id::WorkerId;

use super::{Engine, SandboxError};

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

impl Engine {
    /// Every container of this namespace, whoever made it.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn list(&self) -> Result<Vec<ContainerInfo>, SandboxError> {
        unimplemented!()
    }

    /// Removes the containers of this namespace whose worker is neither in `alive` nor this one; says how many.
    ///
    /// # Errors
    /// When the engine does not answer. A container that is already going counts as removed.
    pub async fn reap(&self, alive: &[WorkerId]) -> Result<usize, SandboxError> {
        let _ = alive;
        unimplemented!()
    }

    /// Removes every container that carries this worker's name: those of an earlier process before the first is
    /// started, or what is left after the last was destroyed. Says how many.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn reap_own(&self) -> Result<usize, SandboxError> {
        unimplemented!()
    }
}
