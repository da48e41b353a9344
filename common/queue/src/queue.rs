//! The entry point: a connected queue. Each step of a job adds its methods in a module of its own.

use std::sync::Arc;

use sandhog_config::RedisSettings;
use sandhog_core::id::Namespace;

use crate::QueueError;
use crate::connection::SharedConnection;
use crate::keys::Keys;

/// One namespace of one Redis. Cheap to clone; clones share one connection for all commands that do
/// not block.
///
/// After a broken connection the next command reconnects. A command that is safe to repeat is
/// retried until `redis.response_timeout_ms` has passed.
#[derive(Debug, Clone)]
pub struct Queue {
    pub(crate) connection: SharedConnection,
    pub(crate) keys: Arc<Keys>,
}

impl Queue {
    /// Connects to the queue of `namespace`.
    ///
    /// # Errors
    /// Fails when no address is set, when the address cannot be parsed, and when Redis cannot be
    /// reached within `redis.connect_timeout_ms`.
    pub async fn connect(
        settings: &RedisSettings,
        namespace: &Namespace,
    ) -> Result<Self, QueueError> {
        let keys = Keys::new(namespace);
        Ok(Self {
            connection: SharedConnection::connect(settings, &keys.identity()).await?,
            keys: Arc::new(keys),
        })
    }

    /// The keys of this namespace.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.keys
    }
}
