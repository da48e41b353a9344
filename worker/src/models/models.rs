//! The models of one worker: starts, keeps loaded and releases their supervisors.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use sandhog_config::WorkerSettings;
use sandhog_core::id::ImageName;
use sandhog_core::infer::Serving;
use sandhog_core::job::CheckedJob;
use sandhog_core::units::ByteCount;
use sandhog_queue::{ModelFacts, ModelState};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::admitted_call::AdmittedCall;
use super::infer_policy::InferPolicy;
use super::load_permits::LoadPermits;
use super::model::Model;
use super::supervisor::{ModelCommand, ModelStatus, ModelSupervisor};
use crate::attempt::ExecutorError;
use crate::gpu::{Demand, Gpus};
use crate::pool::Pool;
use crate::sandbox::{Digest, Image, SandboxError, Sandboxes};

/// Interval between checks of which models should stay loaded.
const WARM_CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// The models of one worker. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Models {
    pub(super) shared: Arc<SharedModels>,
}

/// The state that all handles of [`Models`] share.
#[derive(Debug)]
pub(super) struct SharedModels {
    pub(super) sandboxes: Sandboxes,
    /// The pool whose budget includes the memory of the servers.
    pool: Pool,
    pub(super) gpus: Gpus,
    /// Maximum memory of one container.
    memory: ByteCount,
    /// Maximum number of loaded models; 0 if this worker serves none.
    max_loaded: u32,
    /// The inference requests that programs may make.
    pub(super) policy: InferPolicy,
    permits: Arc<LoadPermits>,
    models: Mutex<HashMap<Digest, Model>>,
    /// Time of the last check of which models should stay loaded.
    last_warm_check: Mutex<Instant>,
    /// Builds already reported as having no room to stay loaded. Each is logged once.
    warned_no_room: Mutex<HashSet<Digest>>,
    supervisors: TaskTracker,
    stop: CancellationToken,
}

impl Models {
    /// Creates the models of a worker. Each server runs in one of `sandboxes` and on `gpus`, and
    /// its memory counts in the budget of `pool`; `settings` limits their number and the programs
    /// that may call them. `memory` is the memory of one container.
    #[must_use]
    pub fn new(
        sandboxes: Sandboxes,
        pool: Pool,
        gpus: Gpus,
        settings: &WorkerSettings,
        memory: ByteCount,
    ) -> Self {
        let max_loaded = settings.models;
        Self {
            shared: Arc::new(SharedModels {
                sandboxes,
                pool,
                gpus,
                memory,
                max_loaded,
                policy: InferPolicy::new(settings),
                permits: LoadPermits::new(usize::try_from(max_loaded).unwrap_or(usize::MAX)),
                models: Mutex::default(),
                last_warm_check: Mutex::new(Instant::now()),
                warned_no_room: Mutex::default(),
                supervisors: TaskTracker::new(),
                stop: CancellationToken::new(),
            }),
        }
    }

    /// Loads every model whose image sets `min_warm`, and waits until each is loaded or has failed
    /// to load. One place stays free for a model on demand. Models that do not fit in the other
    /// places are loaded on demand.
    ///
    /// # Errors
    /// If the engine cannot list its images.
    ///
    /// # Cancel safety
    /// Safe: the loading continues.
    pub async fn warm(&self) -> Result<(), SandboxError> {
        // All loads are started before any is awaited.
        let loading = self.start_warm_models().await?;
        let loaded = loading.into_iter().map(|model| async move {
            let mut status = model.status.clone();
            let settled = status
                .wait_for(|status| status.state.serves() || status.state == ModelState::Broken)
                .await;
            // A supervisor that has ended publishes no more state, so there is nothing to wait for.
            settled.is_ok()
        });
        join_all(loaded).await;
        Ok(())
    }

    /// Starts to load images that set `min_warm` and are not known yet, and releases images that no
    /// longer set it. Must be called at intervals: this detects images that were built or rebuilt
    /// in the meantime.
    ///
    /// # Cancel safety
    /// Safe: models that were not started are left to the next call.
    pub async fn keep_warm(&self) {
        if self.shared.max_warm() == 0 {
            return;
        }
        {
            let last_warm_check = self.shared.last_warm_check.lock();
            let mut last_warm_check = last_warm_check.unwrap_or_else(PoisonError::into_inner);
            if last_warm_check.elapsed() < WARM_CHECK_INTERVAL {
                return;
            }
            *last_warm_check = Instant::now();
        }
        if let Err(error) = self.start_warm_models().await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "models not kept loaded"
            );
        }
    }

    /// Starts a supervisor for every model that should stay loaded, as far as there is room.
    async fn start_warm_models(&self) -> Result<Vec<Model>, SandboxError> {
        if self.shared.max_loaded == 0 {
            return Ok(Vec::new());
        }
        let images = self.shared.sandboxes.inference_images().await?;
        let wanted: Vec<(&Image, &Serving)> = images
            .iter()
            .filter_map(|image| Some((image, image.contract.serve.as_ref()?)))
            // A model that needs a GPU is kept loaded only by workers that have one.
            .filter(|(image, serving)| {
                let gpu = image.contract.gpu;
                let here = gpu.is_none_or(|need| self.shared.gpus.can_meet(&Demand::of(need)));
                here && serving.min_warm > 0
            })
            .collect();
        let warm: HashSet<ImageName> = self.with_models(|models| {
            models.retain(|_, model| {
                let named = |(image, _): &(&Image, _)| image.name == model.image.name;
                !model.warm || wanted.iter().any(named)
            });
            let warm = models.values().filter(|model| model.warm);
            warm.map(|model| model.image.name.clone()).collect()
        });
        let mut free = self.shared.max_warm().saturating_sub(warm.len());
        let mut started = Vec::new();
        for (image, serving) in wanted {
            if warm.contains(&image.name) {
                started.push(self.model(image, serving, true));
            } else if free > 0 {
                free -= 1;
                started.push(self.model(image, serving, true));
            } else {
                self.shared.warn_no_room_once(image);
            }
        }
        Ok(started)
    }

    /// Returns the number of loaded models.
    #[must_use]
    pub fn loaded(&self) -> usize {
        self.with_models(|models| models.values().filter(|model| model.is_loaded()).count())
    }

    /// Returns the state of each model that was requested so far, sorted by image.
    #[must_use]
    pub fn facts(&self) -> Vec<ModelFacts> {
        let mut facts: Vec<ModelFacts> =
            self.with_models(|models| models.values().map(Model::facts).collect());
        facts.sort_by(|a, b| a.image.cmp(&b.image));
        facts
    }

    /// Stops every server and waits until nothing of them is left. Jobs that still wait get no
    /// reply.
    ///
    /// # Cancel safety
    /// Safe: the work continues in the background.
    pub async fn close(&self) {
        self.shared.stop.cancel();
        self.with_models(HashMap::clear);
        self.shared.supervisors.close();
        self.shared.supervisors.wait().await;
        self.shared.sandboxes.wait_for_removals().await;
    }

    /// Returns the handle to the supervisor of `image`, which is started if there is none. The
    /// supervisor of an older build is released and ends after its last job is answered.
    pub(super) fn model(&self, image: &Image, serving: &Serving, warm: bool) -> Model {
        self.with_models(|models| {
            if let Some(model) = models.get_mut(&image.digest) {
                if warm && !model.warm {
                    model.warm = true;
                    // The send fails only if the supervisor has ended, which means that the worker
                    // is stopping.
                    drop(model.commands.send(ModelCommand::KeepLoaded));
                }
                return model.clone();
            }
            let older = models.values().find(|older| older.image.name == image.name);
            let warm = warm || (serving.min_warm > 0 && older.is_some_and(|older| older.warm));
            models.retain(|_, older| older.image.name != image.name);
            let (commands, command_receiver) = mpsc::unbounded_channel();
            let (status_sender, status) = watch::channel(ModelStatus::default());
            let supervisor = ModelSupervisor {
                sandboxes: self.shared.sandboxes.clone(),
                pool: self.shared.pool.clone(),
                gpus: self.shared.gpus.clone(),
                image: image.clone(),
                serving: serving.clone(),
                warm,
                commands: command_receiver,
                permits: Arc::clone(&self.shared.permits),
                status: status_sender,
                stop: self.shared.stop.clone(),
            };
            self.shared.supervisors.spawn(supervisor.run());
            let model = Model::new(image, serving, warm, commands, status);
            models.insert(image.digest.clone(), model.clone());
            model
        })
    }

    /// Returns the call, the input and the limits with which `image` answers `job`. Every inference
    /// request, of a job or of a program, passes through this function.
    ///
    /// # Errors
    /// If the image does not serve the request of the job, or this worker serves no models.
    pub(super) fn admit<'a>(
        &self,
        image: &'a Image,
        job: &CheckedJob,
    ) -> Result<AdmittedCall<'a>, ExecutorError> {
        let serves = self.shared.max_loaded > 0;
        AdmittedCall::new(image, job, self.shared.memory, serves)
    }

    fn with_models<T>(&self, access: impl FnOnce(&mut HashMap<Digest, Model>) -> T) -> T {
        let models = self.shared.models.lock();
        access(&mut models.unwrap_or_else(PoisonError::into_inner))
    }
}

impl SharedModels {
    /// Returns the number of models that may stay loaded without demand. One place stays free for a
    /// model on demand.
    fn max_warm(&self) -> usize {
        usize::try_from(self.max_loaded.saturating_sub(1)).unwrap_or(usize::MAX)
    }

    /// Logs once for each build that it will not stay loaded.
    fn warn_no_room_once(&self, image: &Image) {
        let warned = self.warned_no_room.lock();
        let mut warned = warned.unwrap_or_else(PoisonError::into_inner);
        if warned.insert(image.digest.clone()) {
            tracing::warn!(
                image = %image.name,
                models = self.max_loaded,
                "no place to keep this model loaded: worker.models reserves one for other models"
            );
        }
    }
}
