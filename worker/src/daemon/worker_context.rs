//! Handles that all namespaces of one worker share.

use std::sync::Arc;

use sandhog_core::id::WorkerId;
use sandhog_core::units::UnixMillis;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::capacity::Capacity;
use crate::gpu::Gpus;
use crate::health::Health;
use crate::models::Models;
use crate::pool::Pool;
use crate::sandbox::Sandboxes;
use crate::trace::Tracing;

/// Handles that all namespaces of one worker share.
#[derive(Debug)]
pub(super) struct WorkerContext<E> {
    pub(super) worker: WorkerId,
    pub(super) executor: Arc<E>,
    /// Free slots for jobs without a GPU.
    pub(super) slots: Arc<Semaphore>,
    /// Number of these slots.
    pub(super) slot_count: usize,
    /// Memory and CPU for the jobs of all namespaces.
    pub(super) capacity: Capacity,
    /// Running attempts.
    pub(super) running: TaskTracker,
    pub(super) sandboxes: Option<(Sandboxes, Pool)>,
    pub(super) models: Option<Models>,
    /// `None` for a worker without containers, for which `gpu` is a tag like any other.
    pub(super) gpus: Option<Gpus>,
    pub(super) tracing: Tracing,
    pub(super) health: Arc<Health>,
    pub(super) started_at: UnixMillis,
    /// Stops claiming and admitting.
    pub(super) claiming: CancellationToken,
    /// Stops everything else.
    pub(super) serving: CancellationToken,
}
