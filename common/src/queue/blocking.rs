//! Connections that wait. Each waiting reader has its own, and a wait is ended by the server, never by dropping it.

use super::QueueError;

/// Ends a wait of one reader from another task, with `CLIENT UNBLOCK`.
#[derive(Debug, Clone)]
pub struct Unblocker {}

impl Unblocker {
    /// Makes the reader's present wait answer that nothing came; when it is not waiting, its next wait does.
    ///
    /// # Errors
    /// When Redis cannot be reached. The reader's wait ends by its own timeout then.
    pub async fn unblock(&self) -> Result<(), QueueError> {
        unimplemented!()
    }
}
