//! Models that stay loaded: one server for each inference image, fed with the jobs of kind `infer`.
//!
//! A job is handed to its model's *keeper* and waits there without a slot of its own: what bounds how many wait is how
//! many the model can take in ([`Models::infer`]). The keeper loads the server when it is wanted, gathers jobs into
//! batches, restarts a server that dies and stops one that nobody needs. Every job is told its own end.
//!
//! It refuses to answer a job twice, to call a dead server's jobs failed, and to load for ever what does not load.

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

/// How often it is looked what is to stay loaded.
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
    /// The most memory one container has.
    memory: ByteCount,
    most: u32,
    /// What programs may ask.
    policy: Policy,
    seats: Arc<Seats>,
    known: Mutex<HashMap<Digest, Model>>,
    /// When it was last looked what is to stay loaded.
    looked: Mutex<Instant>,
    /// The builds of which it was said that there is no place for them.
    no_place: Mutex<HashSet<Digest>>,
    keepers: TaskTracker,
    stop: CancellationToken,
}

/// The way to one model's keeper.
#[derive(Debug, Clone)]
struct Model {
    image: Image,
    warm: bool,
    mail: mpsc::UnboundedSender<Mail>,
    /// How many jobs it takes in.
    places: Arc<Semaphore>,
    shown: watch::Receiver<Shown>,
}

impl Models {
    /// Models served from containers of this engine and with these GPUs, as many and for whom `settings` says. `memory` is what one
    /// container has.
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

    /// Loads every model whose image says `min_warm`, and waits until each is loaded or has failed to load. One place
    /// is left for a model that somebody asks for; what does not fit in the others is loaded when it is wanted.
    ///
    /// # Errors
    /// When the engine does not list its images.
    ///
    /// # Cancel safety
    /// Safe: the loading goes on.
    pub async fn warm(&self) -> Result<(), SandboxError> {
        // All are begun before any is waited for.
        let loading = self.begin_warm().await?;
        let loaded = loading.into_iter().map(|model| async move {
            let mut shown = model.shown.clone();
            let settled = shown
                .wait_for(|shown| shown.state.serves() || shown.state == ModelState::Broken)
                .await;
            // A keeper that ended shows nothing more, and there is nothing to wait for.
            settled.is_ok()
        });
        join_all(loaded).await;
        Ok(())
    }

    /// Begins to load what says `min_warm` and is not known yet, and lets go what says so no more. Call it every so often:
    /// an image that was rebuilt, or is only built now, is noticed then.
    ///
    /// # Cancel safety
    /// Safe: what was not begun is left to the next call.
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

    /// Has a keeper for every model that is to stay loaded, as far as there is room.
    async fn begin_warm(&self) -> Result<Vec<Model>, SandboxError> {
        if self.shared.most == 0 {
            return Ok(Vec::new());
        }
        let images = self.shared.engine.inference_images().await?;
        let wanted: Vec<(&Image, &Serving)> = images
            .iter()
            .filter_map(|image| Some((image, image.contract.serve.as_ref()?)))
            // A model that wants a GPU is kept loaded by the workers that have one.
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

    /// How many models are loaded.
    #[must_use]
    pub fn loaded(&self) -> usize {
        self.known(|known| {
            known
                .values()
                .filter(|model| model.shown.borrow().state.serves())
                .count()
        })
    }

    /// What there is to say of each model that somebody asked for, by image.
    #[must_use]
    pub fn facts(&self) -> Vec<ModelFacts> {
        let mut facts: Vec<ModelFacts> =
            self.known(|known| known.values().map(Model::facts).collect());
        facts.sort_by(|a, b| a.image.cmp(&b.image));
        facts
    }

    /// Stops every server and waits until nothing of them is left. Jobs that still wait are told nothing.
    ///
    /// # Cancel safety
    /// Safe: what was begun is finished in the background.
    pub async fn close(&self) {
        self.shared.stop.cancel();
        self.known(HashMap::clear);
        self.shared.keepers.close();
        self.shared.keepers.wait().await;
        self.shared.engine.settle().await;
    }

    /// The way to the keeper of `image`, who is begun if there is none. An older build of it is let go: its keeper
    /// ends once its last job is answered.
    fn model(&self, image: &Image, serving: &Serving, warm: bool) -> Model {
        self.known(|known| {
            if let Some(model) = known.get_mut(&image.digest) {
                if warm && !model.warm {
                    model.warm = true;
                    // A keeper that is gone is the stopping worker's.
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
    /// How many models may stay loaded though nobody asks: one place is left for one that somebody asks for.
    fn kept_warm(&self) -> usize {
        usize::try_from(self.most.saturating_sub(1)).unwrap_or(usize::MAX)
    }

    /// Says once of a build that it will not stay loaded.
    fn say_no_place(&self, image: &Image) {
        let mut said = self.no_place.lock().unwrap_or_else(PoisonError::into_inner);
        if said.insert(image.digest.clone()) {
            tracing::warn!(image = %image.name, models = self.most, "no place to keep this model loaded: worker.models leaves one for others");
        }
    }
}

impl Model {
    /// Whether its server is there.
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

/// How many jobs a model takes in: those it works on, and as many again, so that the next batch is full.
fn places(serving: &Serving) -> usize {
    let at_once = u64::from(serving.concurrency) * u64::from(serving.max_batch);
    usize::try_from(2 * at_once)
        .unwrap_or(usize::MAX)
        .min(Semaphore::MAX_PERMITS)
}
