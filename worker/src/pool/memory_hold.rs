//! Memory of the pool's budget that a model server holds.

use std::sync::Arc;

use super::pool::SharedPool;

/// Memory that counts in the budget of the pool like that of a running job. It is released when
/// this value is dropped.
#[derive(Debug)]
pub struct MemoryHold {
    number: u64,
    pool: Arc<SharedPool>,
}

impl MemoryHold {
    pub(super) fn new(number: u64, pool: Arc<SharedPool>) -> Self {
        Self { number, pool }
    }

    /// Waits until a job or another model server lacks memory that no idle container can give. An
    /// idle model server should stop then.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn wait_for_demand(&self) {
        let mut wanted = self.pool.wants_memory.subscribe();
        // The sender is a part of the pool, so it exists.
        drop(wanted.wait_for(|wanted| *wanted).await);
    }
}

impl Drop for MemoryHold {
    fn drop(&mut self) {
        self.pool.release_hold(self.number);
    }
}
