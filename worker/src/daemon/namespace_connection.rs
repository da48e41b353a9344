//! Connection of a worker to one namespace.
//!
//! Namespaces share the worker's slots and containers and nothing else. Each may be on another node
//! of a cluster, and one that does not answer does not delay the others.

use sandhog_config::Settings;
use sandhog_core::id::Namespace;
use sandhog_queue::{Queue, QueueError};

/// A namespace that is connected but not served yet.
#[derive(Debug)]
pub(super) struct NamespaceConnection {
    pub(super) namespace: Namespace,
    pub(super) queue: Queue,
}

impl NamespaceConnection {
    /// Connects and checks that Redis is configured so that it does not lose jobs.
    pub(super) async fn open(
        settings: &Settings,
        namespace: Namespace,
    ) -> Result<Self, QueueError> {
        let queue = Queue::connect(&settings.redis, &namespace).await?;
        queue.check().await?;
        Ok(Self { namespace, queue })
    }
}
