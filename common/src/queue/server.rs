//! What kind of Redis this is, and whether it may hold jobs.

use super::{Queue, QueueError};

/// What a Redis server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFacts {
    /// Its version, such as `7.0.15`.
    pub version: String,
    /// What it does when its memory is full: `maxmemory-policy`.
    pub eviction_policy: String,
    /// Whether it keeps an append-only file.
    pub appendonly: bool,
    /// Its memory cap in bytes; zero means none.
    pub maxmemory: u64,
}

impl Queue {
    /// Asks the server what it is.
    ///
    /// # Errors
    /// When Redis cannot be asked, or answers nonsense.
    pub async fn server(&self) -> Result<ServerFacts, QueueError> {
        unimplemented!()
    }

    /// Refuses a server that could lose jobs: one that evicts keys, or one older than 7.0.
    ///
    /// # Errors
    /// [`QueueError::Evicting`] and [`QueueError::TooOld`], each with a hint; and as [`Queue::server`].
    pub async fn check(&self) -> Result<ServerFacts, QueueError> {
        unimplemented!()
    }
}
