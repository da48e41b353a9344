//! The GPUs of a worker: their tags, and their assignment to jobs and model servers.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};

use sandhog_config::{GpuChoice, GpuSettings};
use sandhog_core::class::Class;
use sandhog_core::gpu::{GPU_TAG, GpuFacts, GpuNeed, GpuNeedError, gpu_tag};
use sandhog_core::id::Tag;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;

use super::allocator::{GpuAllocator, Grant};
use super::assigner::Unsatisfiable;
use super::demand::Demand;
use super::discover::{FoundGpu, GpuError, discover_with_library};
use super::health::{self, HealthEvent};
use sandhog_core::error_chain::error_chain;

/// Environment variable in which a program finds the driver's names of its GPUs, separated by
/// commas.
pub const GPUS_VARIABLE: &str = "SANDHOG_GPUS";

/// The GPUs of one worker. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Gpus {
    /// The tags of all models present when the worker started, including those of failed GPUs.
    models: Arc<[Tag]>,
    allocator: Arc<GpuAllocator>,
}

impl Gpus {
    /// Creates an instance without GPUs.
    #[must_use]
    pub fn none() -> Self {
        Self::new(Vec::new(), 1, CancellationToken::new())
    }

    /// Finds the GPUs and starts to watch their health. Logs once which GPUs were found, or that
    /// there are none.
    ///
    /// # Errors
    /// If the library or a GPU that the settings name is not available.
    pub async fn start(settings: &GpuSettings) -> Result<Self, GpuError> {
        if settings.devices == GpuChoice::None {
            return Ok(Self::none());
        }
        let (library, found) = match discover_with_library(settings.clone()).await {
            Ok(found) => found,
            Err(error) if settings.library.is_some() => return Err(error),
            Err(error @ GpuError::NoLibrary { .. }) => {
                // The usual machine has none, so this is logged at debug level only.
                tracing::debug!(why = %error_chain(&error), "no gpus: jobs run on cpus");
                return Ok(Self::none());
            }
            Err(error @ GpuError::Broken { .. }) => {
                tracing::warn!(why = %error_chain(&error), "no gpus: jobs run on cpus");
                return Ok(Self::none());
            }
            Err(error @ GpuError::Unknown { .. }) => return Err(error),
        };
        for why in &found.left_out {
            tracing::warn!(why, "gpu left out");
        }
        for gpu in &found.gpus {
            tracing::info!(
                uuid = %gpu.uuid,
                name = %gpu.name,
                memory = %gpu.memory,
                driver = %found.driver,
                "gpu found"
            );
        }
        let stop = CancellationToken::new();
        let gpus = Self::new(found.gpus.clone(), settings.share, stop.clone());
        if found.gpus.is_empty() {
            tracing::info!(
                driver = %found.driver,
                not_chosen = found.not_chosen,
                "no gpus: jobs run on cpus"
            );
            return Ok(gpus);
        }
        let every = settings.check_ms.duration();
        let watched = found.gpus.clone();
        let watching =
            tokio::task::spawn_blocking(move || health::watch(library, &watched, every, stop));
        match watching.await.map_err(std::io::Error::other).flatten() {
            Ok(events) => {
                tokio::spawn(apply_health_events(Arc::downgrade(&gpus.allocator), events));
            }
            Err(error) => (0..found.gpus.len()).for_each(|index| {
                gpus.allocator
                    .fail(index, &format!("it cannot be watched: {error}"))
            }),
        }
        Ok(gpus)
    }

    fn new(found: Vec<FoundGpu>, share: u32, stop: CancellationToken) -> Self {
        let models: BTreeSet<Tag> = found.iter().filter_map(|gpu| gpu.tag.clone()).collect();
        Self {
            models: models.into_iter().collect(),
            allocator: GpuAllocator::new(found, share, stop),
        }
    }

    /// Returns whether there were any GPUs when the worker started.
    #[must_use]
    pub fn has_any(&self) -> bool {
        self.allocator.count() > 0
    }

    /// Returns whether a working GPU has no holder.
    #[must_use]
    pub fn has_free(&self) -> bool {
        self.allocator.has_free()
    }

    /// Returns the tags that a worker configured with `tags` offers: `gpu` and the models' tags
    /// only while such a GPU works, and always then.
    #[must_use]
    pub fn offered(&self, tags: &BTreeSet<Tag>) -> BTreeSet<Tag> {
        let mut offered: BTreeSet<Tag> = tags
            .iter()
            .filter(|tag| tag.as_str() != GPU_TAG && !self.models.contains(tag))
            .cloned()
            .collect();
        for model in self.allocator.working_models() {
            offered.insert(gpu_tag());
            offered.extend(model);
        }
        offered
    }

    /// Returns whether jobs of this class get a GPU: the class has the tag `gpu` or the tag of one
    /// of this worker's models.
    #[must_use]
    pub fn serves_class(&self, class: &Class) -> bool {
        class.tags().any(|tag| self.names_gpus(tag))
    }

    /// Returns whether jobs that ask for this tag get a GPU.
    #[must_use]
    pub fn serves_tag(&self, tag: &Tag) -> bool {
        self.names_gpus(tag.as_str())
    }

    fn names_gpus(&self, tag: &str) -> bool {
        tag == GPU_TAG || self.models.iter().any(|model| model.as_str() == tag)
    }

    /// Returns the GPU demand of a job of this class, from its payload and its image; `None` for
    /// most jobs.
    ///
    /// # Errors
    /// If the class does not ask for the GPU that the job or the image needs, or the need is
    /// invalid.
    pub fn demand(
        &self,
        job: Option<GpuNeed>,
        image: Option<GpuNeed>,
        class: &Class,
    ) -> Result<Option<Demand>, GpuNeedError> {
        Demand::read(job, image, class, self.serves_class(class), &self.models)
    }

    /// Waits until GPUs that meet the demand are free, and returns them.
    ///
    /// # Errors
    /// If this worker does not have enough such GPUs in working order.
    ///
    /// # Cancel safety
    /// Cancel safe: dropping the future gives up its place in the queue, or the GPUs already
    /// granted.
    pub async fn acquire(&self, demand: Demand) -> Result<Grant, Unsatisfiable> {
        self.allocator.acquire(demand).await
    }

    /// Returns whether the working GPUs could meet the demand if all were free.
    #[must_use]
    pub fn can_meet(&self, demand: &Demand) -> bool {
        self.allocator.can_meet(demand)
    }

    /// Returns whether the demand could be met if every GPU outside `kept` were free.
    #[must_use]
    pub fn can_meet_outside(&self, demand: &Demand, kept: &[String]) -> bool {
        // A holder without a GPU blocks no demand.
        kept.is_empty() || self.allocator.can_meet_outside(demand, kept)
    }

    /// Returns a semaphore with one permit for each job that may be claimed for GPUs: the number of
    /// jobs that may share the working ones.
    #[must_use]
    pub fn job_permits(&self) -> Arc<Semaphore> {
        self.allocator.job_permits()
    }

    /// Returns the number of jobs that may have GPUs at once.
    #[must_use]
    pub fn max_jobs(&self) -> usize {
        self.allocator.max_jobs()
    }

    /// Returns the state of each GPU, including failed ones.
    #[must_use]
    pub fn facts(&self) -> Vec<GpuFacts> {
        self.allocator.facts()
    }
}

/// Applies the events of the health thread for as long as the GPUs are in use. If the thread ends
/// by itself, all GPUs count as failed, because their health is no longer known.
async fn apply_health_events(
    allocator: Weak<GpuAllocator>,
    mut events: UnboundedReceiver<HealthEvent>,
) {
    while let Some(event) = events.recv().await {
        let Some(allocator) = allocator.upgrade() else {
            return;
        };
        match event {
            HealthEvent::Sampled(index, sample) => allocator.record(index, sample),
            HealthEvent::Failed(index, why) => allocator.fail(index, &why),
        }
    }
    if let Some(allocator) = allocator.upgrade() {
        (0..allocator.count())
            .for_each(|index| allocator.fail(index, "its health thread has ended"));
    }
}
