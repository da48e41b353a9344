//! Slots, containers, models and GPUs of a worker, and how much of them is in use.

use std::sync::Arc;

use sandhog_core::gpu::GpuFacts;
use sandhog_queue::ModelFacts;
use tokio_util::task::TaskTracker;

use crate::models::Models;
use crate::pool::{Pool, PoolCounts};
use crate::served_classes::ServedClasses;

/// Handles from which the load of a worker is read.
#[derive(Debug)]
pub(crate) struct WorkerLoad {
    /// Number of slots for jobs without a GPU.
    pub(crate) slots_without_gpu: usize,
    /// The attempts of all namespaces of the worker.
    pub(crate) running: TaskTracker,
    /// The classes that the worker serves in one namespace.
    pub(crate) served: Arc<ServedClasses>,
    /// `None` for a worker without containers.
    pub(crate) pool: Option<Pool>,
    /// `None` for a worker without containers.
    pub(crate) models: Option<Models>,
}

impl WorkerLoad {
    /// Returns the number of jobs that can run at once.
    pub(super) fn slots(&self) -> usize {
        self.served.slots(self.slots_without_gpu)
    }

    /// Returns the number of running attempts.
    pub(super) fn busy(&self) -> usize {
        self.running.len()
    }

    /// Returns the numbers of the pool.
    pub(super) fn pool_counts(&self) -> Option<PoolCounts> {
        self.pool.as_ref().map(Pool::counts)
    }

    /// Returns the state of each model.
    pub(super) fn model_facts(&self) -> Vec<ModelFacts> {
        self.models.as_ref().map_or(Vec::new(), Models::facts)
    }

    /// Returns the state of each GPU.
    pub(super) fn gpus(&self) -> Vec<GpuFacts> {
        self.served.gpus()
    }
}
