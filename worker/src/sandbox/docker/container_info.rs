//! A container as the engine lists it.

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
