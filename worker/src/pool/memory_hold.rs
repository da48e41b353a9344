//! Memory of the pool's budget that a model server holds.

use std::fmt::Debug;
use std::sync::Arc;

use tokio::sync::watch;

/// Memory that counts in the budget of the pool like that of a running job. It is released when
/// this value is dropped.
#[derive(Debug)]
pub struct MemoryHold {
    number: u64,
    pool: Arc<dyn HoldRelease>,
    /// `true` while memory is lacking.
    wanted: watch::Receiver<bool>,
}

/// The part of the pool that takes the memory back.
pub(super) trait HoldRelease: Debug + Send + Sync {
    /// Releases the memory of a hold.
    fn release(self: Arc<Self>, number: u64);
}

impl MemoryHold {
    pub(super) fn new(
        number: u64,
        pool: Arc<dyn HoldRelease>,
        wanted: watch::Receiver<bool>,
    ) -> Self {
        Self {
            number,
            pool,
            wanted,
        }
    }

    /// Waits until a job or another model server lacks memory that no idle container can give. An
    /// idle model server should stop then.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn wait_for_demand(&self) {
        let mut wanted = self.wanted.clone();
        // The pool keeps the sender, so it exists.
        drop(wanted.wait_for(|wanted| *wanted).await);
    }
}

impl Drop for MemoryHold {
    fn drop(&mut self) {
        Arc::clone(&self.pool).release(self.number);
    }
}
