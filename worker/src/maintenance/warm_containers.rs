//! Upkeep of the worker's containers and models.

use sandhog_config::WarmCount;

use super::worker_load::WorkerLoad;
use crate::models::Models;
use crate::pool::Pool;

/// Keeps containers and models ready, and removes those that are not needed.
#[derive(Debug)]
pub(crate) struct WarmContainers {
    pub(crate) pool: Pool,
    pub(crate) models: Option<Models>,
    /// Images for which unused containers are kept ready.
    pub(crate) images: Vec<WarmCount>,
}

impl WarmContainers {
    /// Removes the containers of failed GPUs and those that were idle for too long, and starts the
    /// containers and models that should be ready.
    pub(super) async fn keep_warm(&self, load: &WorkerLoad) {
        let gpus = load.gpus().into_iter();
        let failed = gpus.filter(|gpu| gpu.failure.is_some());
        let failed: Vec<String> = failed.map(|gpu| gpu.uuid).collect();
        if !failed.is_empty() {
            self.pool.withdraw(&failed);
        }
        self.pool.sweep();
        self.pool.keep_warm(&self.images).await;
        if let Some(models) = &self.models {
            models.keep_warm().await;
        }
    }
}
