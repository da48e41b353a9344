//! Loaded models: one server for each inference image, which processes the jobs of kind `infer`.
//!
//! A job is passed to the supervisor of its model (`Keeper`) and waits there without a slot; the
//! number of waiting jobs is limited by the number that the model accepts ([`Models::infer`]). The
//! supervisor loads the server on demand, collects jobs into batches, restarts a server that died
//! and stops one that is idle. Each job receives its own result.
//!
//! A job is never answered twice. If a server dies, its jobs count as lost, not as failed. A model
//! that cannot be loaded is not retried forever.

mod asking;
mod calls;
mod job;
mod keeper;
mod load;
mod question;
mod seats;
mod slip;
mod tail;
mod trial;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use sandhog_common::config::WorkerSettings;
use sandhog_common::id::ImageName;
use sandhog_common::infer::Serving;
use sandhog_common::limits::{LimitWishes, Limits};
use sandhog_common::queue::{ModelFacts, ModelState};
use sandhog_common::units::ByteCount;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::gpu::{Demand, Gpus};
use crate::sandbox::{Digest, Engine, Image, SandboxError};
pub(crate) use asking::Answering;
use asking::Policy;
use keeper::{Keeper, Mail, Shown};
use seats::Seats;
pub(crate) use trial::load_once;

/// Interval between checks of which models should stay loaded.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The models of one worker. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Models {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    engine: Engine,
    gpus: Gpus,
    /// Maximum memory of one container.
    memory: ByteCount,
    most: u32,
    /// The inference requests that programs may make.
    policy: Policy,
    seats: Arc<Seats>,
    known: Mutex<HashMap<Digest, Model>>,
    /// Time of the last check of which models should stay loaded.
    looked: Mutex<Instant>,
    /// Builds already reported as having no room to stay loaded. Each is logged once.
    no_place: Mutex<HashSet<Digest>>,
    keepers: TaskTracker,
    stop: CancellationToken,
}

/// Handle to one model's supervisor.
#[derive(Debug, Clone)]
struct Model {
    image: Image,
    warm: bool,
    mail: mpsc::UnboundedSender<Mail>,
    /// Permits for the jobs that the model accepts.
    places: Arc<Semaphore>,
    shown: watch::Receiver<Shown>,
}

impl Models {
    /// Creates the models of a worker. Their servers run in containers of `engine` and on `gpus`;
    /// `settings` limits their number and the programs that may call them. `memory` is the memory
    /// of one container.
    #[must_use]
    pub fn new(engine: Engine, gpus: Gpus, settings: &WorkerSettings, memory: ByteCount) -> Self {
        let most = settings.models;
        Self {
            shared: Arc::new(Shared {
                engine,
                gpus,
                memory,
                most,
                policy: Policy::new(settings),
                seats: Seats::new(usize::try_from(most).unwrap_or(usize::MAX)),
                known: Mutex::default(),
                looked: Mutex::new(Instant::now()),
                no_place: Mutex::default(),
                keepers: TaskTracker::new(),
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
        let loading = self.begin_warm().await?;
        let loaded = loading.into_iter().map(|model| async move {
            let mut shown = model.shown.clone();
            let settled = shown
                .wait_for(|shown| shown.state.serves() || shown.state == ModelState::Broken)
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
        if self.shared.kept_warm() == 0 {
            return;
        }
        {
            let looked = self.shared.looked.lock();
            let mut looked = looked.unwrap_or_else(PoisonError::into_inner);
            if looked.elapsed() < LOOK_EVERY {
                return;
            }
            *looked = Instant::now();
        }
        if let Err(error) = self.begin_warm().await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "models not kept loaded"
            );
        }
    }

    /// Starts a supervisor for every model that should stay loaded, as far as there is room.
    async fn begin_warm(&self) -> Result<Vec<Model>, SandboxError> {
        if self.shared.most == 0 {
            return Ok(Vec::new());
        }
        let images = self.shared.engine.inference_images().await?;
        let wanted: Vec<(&Image, &Serving)> = images
            .iter()
            .filter_map(|image| Some((image, image.contract.serve.as_ref()?)))
            // A model that needs a GPU is kept loaded only by workers that have one.
            .filter(|(image, serving)| {
                let gpu = image.contract.gpu;
                let here = gpu.is_none_or(|need| self.shared.gpus.could_meet(&Demand::of(need)));
                here && serving.min_warm > 0
            })
            .collect();
        let warm: HashSet<ImageName> = self.known(|known| {
            known.retain(|_, model| {
                let named = |(image, _): &(&Image, _)| image.name == model.image.name;
                !model.warm || wanted.iter().any(named)
            });
            let warm = known.values().filter(|model| model.warm);
            warm.map(|model| model.image.name.clone()).collect()
        });
        let mut free = self.shared.kept_warm().saturating_sub(warm.len());
        let mut begun = Vec::new();
        for (image, serving) in wanted {
            if warm.contains(&image.name) {
                begun.push(self.model(image, serving, true));
            } else if free > 0 {
                free -= 1;
                begun.push(self.model(image, serving, true));
            } else {
                self.shared.say_no_place(image);
            }
        }
        Ok(begun)
    }

    /// Returns the number of loaded models.
    #[must_use]
    pub fn loaded(&self) -> usize {
        self.known(|known| {
            known
                .values()
                .filter(|model| model.shown.borrow().state.serves())
                .count()
        })
    }

    /// Returns the state of each model that was requested so far, sorted by image.
    #[must_use]
    pub fn facts(&self) -> Vec<ModelFacts> {
        let mut facts: Vec<ModelFacts> =
            self.known(|known| known.values().map(Model::facts).collect());
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
        self.known(HashMap::clear);
        self.shared.keepers.close();
        self.shared.keepers.wait().await;
        self.shared.engine.settle().await;
    }

    /// Returns the handle to the supervisor of `image`, which is started if there is none. The
    /// supervisor of an older build is released and ends after its last job is answered.
    fn model(&self, image: &Image, serving: &Serving, warm: bool) -> Model {
        self.known(|known| {
            if let Some(model) = known.get_mut(&image.digest) {
                if warm && !model.warm {
                    model.warm = true;
                    // The send fails only if the supervisor has ended, which means that the worker
                    // is stopping.
                    drop(model.mail.send(Mail::Stay));
                }
                return model.clone();
            }
            let older = known.values().find(|older| older.image.name == image.name);
            let warm = warm || (serving.min_warm > 0 && older.is_some_and(|older| older.warm));
            known.retain(|_, older| older.image.name != image.name);
            let (mail, box_) = mpsc::unbounded_channel();
            let (show, shown) = watch::channel(Shown::default());
            let keeper = Keeper {
                engine: self.shared.engine.clone(),
                gpus: self.shared.gpus.clone(),
                image: image.clone(),
                serving: serving.clone(),
                warm,
                mail: box_,
                seats: Arc::clone(&self.shared.seats),
                shown: show,
                stop: self.shared.stop.clone(),
            };
            self.shared.keepers.spawn(keeper.run());
            let model = Model {
                image: image.clone(),
                warm,
                mail,
                places: Arc::new(Semaphore::new(places(serving))),
                shown,
            };
            known.insert(image.digest.clone(), model.clone());
            model
        })
    }

    fn known<T>(&self, look: impl FnOnce(&mut HashMap<Digest, Model>) -> T) -> T {
        let mut known = self
            .shared
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        look(&mut known)
    }
}

impl Shared {
    /// Returns the number of models that may stay loaded without demand. One place stays free for a
    /// model on demand.
    fn kept_warm(&self) -> usize {
        usize::try_from(self.most.saturating_sub(1)).unwrap_or(usize::MAX)
    }

    /// Logs once for each build that it will not stay loaded.
    fn say_no_place(&self, image: &Image) {
        let mut said = self.no_place.lock().unwrap_or_else(PoisonError::into_inner);
        if said.insert(image.digest.clone()) {
            tracing::warn!(
                image = %image.name,
                models = self.most,
                "no place to keep this model loaded: worker.models reserves one for other models"
            );
        }
    }
}

impl Model {
    /// Returns whether the model's server is running.
    fn is_loaded(&self) -> bool {
        self.shown.borrow().state.serves()
    }

    fn facts(&self) -> ModelFacts {
        let shown = *self.shown.borrow();
        let small = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let contract = &self.image.contract;
        let limits = Limits::resolve(&LimitWishes::default(), &contract.limits, &contract.ceiling);
        ModelFacts {
            image: self.image.name.clone(),
            state: match shown.state {
                ModelState::Ready if shown.running > 0 => ModelState::Busy,
                state => state,
            },
            running: small(shown.running),
            waiting: small(shown.waiting),
            calls: shown.calls,
            loads: shown.loads,
            deaths: shown.deaths,
            memory: limits.map_or(ByteCount(0), |limits| limits.memory),
        }
    }
}

/// Returns the number of jobs that a model accepts: the jobs that it processes at once, and the
/// same number again, so that the next batch is full.
fn places(serving: &Serving) -> usize {
    let at_once = u64::from(serving.concurrency) * u64::from(serving.max_batch);
    usize::try_from(2 * at_once)
        .unwrap_or(usize::MAX)
        .min(Semaphore::MAX_PERMITS)
}
