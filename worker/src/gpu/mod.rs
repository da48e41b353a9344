//! GPUs: found through the driver's library, offered as tags, given to one job at a time or shared by memory, and taken
//! out of service when they fail.
//!
//! A machine without the driver has none, and its worker runs what asks for none. The tag `gpu` says more than other
//! tags do: a worker that has no GPU in working order never offers it, and a job of a class that asks for it is given
//! one. Who holds a GPU that fails is told at once, and its job is lost to a fault of ours.
//!
//! It refuses to give a GPU that failed, and to let two jobs have one unless both said how much of it they use.

mod assign;
mod demand;
mod discover;
mod grant;
mod health;
pub(crate) mod inspect;
mod model;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use sandhog_common::class::Class;
use sandhog_common::config::{GpuChoice, GpuSettings};
use sandhog_common::gpu::{GPU_TAG, GpuFacts, GpuNeed, GpuNeedError, gpu_tag};
use sandhog_common::id::Tag;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::causes::with_causes;
use assign::{Answer, Assigner, Given};
use health::{Reading, Report};

pub use assign::Unmet;
pub use demand::Demand;
pub use discover::{Cause, Found, FoundGpu, GpuError};
pub use grant::Grant;

/// The variable in which a program finds the driver's names of its GPUs, with commas between.
pub const GPUS_VARIABLE: &str = "SANDHOG_GPUS";

/// The GPUs of one worker. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Gpus {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Every model there was when the worker started, failed ones included.
    models: Vec<Tag>,
    /// How many jobs may be claimed for GPUs at once.
    places: Arc<Semaphore>,
    share: u32,
    desk: Mutex<Desk>,
    /// Whether anybody waits for a GPU.
    short: watch::Sender<bool>,
    _watching: DropGuard,
}

#[derive(Debug)]
struct Desk {
    assigner: Assigner,
    readings: Vec<Reading>,
    answers: HashMap<u64, oneshot::Sender<Result<Grant, Unmet>>>,
    /// What is given, with what tells its holder of a failure.
    grants: HashMap<u64, (Given, CancellationToken)>,
}

impl Gpus {
    /// No GPUs at all.
    #[must_use]
    pub fn none() -> Self {
        Self::new(Vec::new(), 1, CancellationToken::new())
    }

    /// Finds what there is and begins to watch it. Says once what was found, or that there is nothing.
    ///
    /// # Errors
    /// When a library or a GPU that the settings name is not to be had.
    pub async fn start(settings: &GpuSettings) -> Result<Self, GpuError> {
        if settings.devices == GpuChoice::None {
            return Ok(Self::none());
        }
        let (library, found) = match look_with(settings.clone()).await {
            Ok(found) => found,
            Err(error) if settings.library.is_some() => return Err(error),
            Err(error @ GpuError::NoLibrary { .. }) => {
                // The usual machine has none: not worth a line at every start.
                tracing::debug!(why = %with_causes(&error), "no gpus: jobs run on cpus");
                return Ok(Self::none());
            }
            Err(error @ GpuError::Broken { .. }) => {
                tracing::warn!(why = %with_causes(&error), "no gpus: jobs run on cpus");
                return Ok(Self::none());
            }
            Err(error @ GpuError::Unknown { .. }) => return Err(error),
        };
        for why in &found.left_out {
            tracing::warn!(why, "gpu left out");
        }
        for gpu in &found.gpus {
            tracing::info!(uuid = %gpu.uuid, name = %gpu.name, memory = %gpu.memory, driver = %found.driver, "gpu found");
        }
        let stop = CancellationToken::new();
        let gpus = Self::new(found.gpus.clone(), settings.share, stop.clone());
        if found.gpus.is_empty() {
            tracing::info!(driver = %found.driver, not_chosen = found.not_chosen, "no gpus: jobs run on cpus");
            return Ok(gpus);
        }
        let every = settings.check_ms.duration();
        let watched = found.gpus.clone();
        let watching =
            tokio::task::spawn_blocking(move || health::watch(library, &watched, every, stop));
        match watching.await.map_err(std::io::Error::other).flatten() {
            Ok(reports) => {
                tokio::spawn(listen(Arc::downgrade(&gpus.shared), reports));
            }
            Err(error) => (0..found.gpus.len()).for_each(|place| {
                gpus.shared
                    .fail(place, &format!("it cannot be watched: {error}"))
            }),
        }
        Ok(gpus)
    }

    fn new(found: Vec<FoundGpu>, share: u32, stop: CancellationToken) -> Self {
        let models: BTreeSet<Tag> = found.iter().filter_map(|gpu| gpu.tag.clone()).collect();
        let places = found.len() * usize::try_from(share).unwrap_or(usize::MAX);
        Self {
            shared: Arc::new(Shared {
                models: models.into_iter().collect(),
                places: Arc::new(Semaphore::new(places)),
                share,
                desk: Mutex::new(Desk {
                    readings: vec![Reading::default(); found.len()],
                    assigner: Assigner::new(found, share),
                    answers: HashMap::new(),
                    grants: HashMap::new(),
                }),
                short: watch::Sender::new(false),
                _watching: stop.drop_guard(),
            }),
        }
    }

    /// Whether there were any when the worker started.
    #[must_use]
    pub fn any(&self) -> bool {
        !self.shared.desk().readings.is_empty()
    }

    /// Whether one that works is nobody's.
    #[must_use]
    pub fn any_free(&self) -> bool {
        let desk = self.shared.desk();
        let mut places = desk.assigner.places.iter();
        places.any(|place| place.failure.is_none() && place.holders == 0)
    }

    /// What a worker with these tags offers: without `gpu` and the models' tags when no such GPU works, with them when
    /// one does.
    #[must_use]
    pub fn offered(&self, tags: &BTreeSet<Tag>) -> BTreeSet<Tag> {
        let desk = self.shared.desk();
        let mut offered: BTreeSet<Tag> = tags
            .iter()
            .filter(|tag| tag.as_str() != GPU_TAG && !self.shared.models.contains(tag))
            .cloned()
            .collect();
        for gpu in desk.assigner.healthy() {
            offered.insert(gpu_tag());
            offered.extend(gpu.tag.clone());
        }
        offered
    }

    /// Whether jobs of this class are given a GPU: it has the tag `gpu`, or that of a model of this worker's.
    #[must_use]
    pub fn serve(&self, class: &Class) -> bool {
        class.tags().any(|tag| self.names_gpus(tag))
    }

    /// Whether jobs that ask for this tag are given a GPU.
    #[must_use]
    pub fn claims(&self, tag: &Tag) -> bool {
        self.names_gpus(tag.as_str())
    }

    fn names_gpus(&self, tag: &str) -> bool {
        tag == GPU_TAG || self.shared.models.iter().any(|model| model.as_str() == tag)
    }

    /// What a job of this class wants of the GPUs, by its payload and its image; nothing for most.
    ///
    /// # Errors
    /// When the class does not ask for the GPU that the job or the image wants, or the need cannot be meant.
    pub fn demand(
        &self,
        job: Option<GpuNeed>,
        image: Option<GpuNeed>,
        class: &Class,
    ) -> Result<Option<Demand>, GpuNeedError> {
        Demand::read(job, image, class, self.serve(class), &self.shared.models)
    }

    /// GPUs that meet the demand, once they are free.
    ///
    /// # Errors
    /// When this worker has no such GPUs that work, or not so many.
    ///
    /// # Cancel safety
    /// Safe: dropping the future gives up the place in the queue, or what was given.
    pub async fn take(&self, demand: Demand) -> Result<Grant, Unmet> {
        let (answer, heard) = oneshot::channel();
        let number = {
            let mut desk = self.shared.desk();
            let number = desk.assigner.want(demand);
            desk.answers.insert(number, answer);
            number
        };
        let _waiting = Waiting {
            number,
            shared: &self.shared,
        };
        self.shared.settle();
        heard
            .await
            .expect("whoever waits is answered before its sender is dropped")
    }

    /// Whether the GPUs that work could meet the demand if nobody had any.
    #[must_use]
    pub fn could_meet(&self, demand: &Demand) -> bool {
        self.shared.desk().assigner.could_meet(demand)
    }

    /// Whether they could if nobody had any but who has these, and keeps them.
    #[must_use]
    pub fn could_meet_beside(&self, demand: &Demand, kept: &[String]) -> bool {
        let desk = self.shared.desk();
        // Who has none keeps nobody from any.
        kept.is_empty() || desk.assigner.could_meet_beside(demand, kept)
    }

    /// One permit for every job that may be claimed for GPUs: as many as may share those that work.
    #[must_use]
    pub fn places(&self) -> Arc<Semaphore> {
        Arc::clone(&self.shared.places)
    }

    /// How many jobs may have GPUs at once.
    #[must_use]
    pub fn most_jobs(&self) -> usize {
        let healthy = self.shared.desk().assigner.healthy().count();
        healthy * usize::try_from(self.shared.share).unwrap_or(usize::MAX)
    }

    /// How each is, failed ones included.
    #[must_use]
    pub fn facts(&self) -> Vec<GpuFacts> {
        let desk = self.shared.desk();
        let places = desk.assigner.places.iter().zip(&desk.readings);
        places
            .map(|(place, reading)| GpuFacts {
                uuid: place.gpu.uuid.clone(),
                name: place.gpu.name.clone(),
                tag: place.gpu.tag.clone(),
                memory: place.gpu.memory,
                memory_used: reading.memory_used,
                utilisation_percent: reading.utilisation_percent,
                assigned: place.holders,
                failure: place.failure.clone(),
            })
            .collect()
    }
}

/// What there is to be found, without giving any of it to anybody: for `doctor`.
///
/// # Errors
/// When there is no library, it does not work, or a GPU that is set is not there.
pub async fn look(settings: &GpuSettings) -> Result<Found, GpuError> {
    look_with(settings.clone()).await.map(|(_, found)| found)
}

async fn look_with(settings: GpuSettings) -> Result<(discover::Library, Found), GpuError> {
    tokio::task::spawn_blocking(move || discover::discover(&settings))
        .await
        .unwrap_or_else(|panicked| {
            Err(GpuError::Broken {
                library: "the driver's library".to_owned(),
                step: "answer",
                source: panicked.into(),
            })
        })
}

/// Hears what the watch says for as long as anybody wants GPUs. A watch that ends by itself leaves nothing that could
/// be trusted.
async fn listen(shared: Weak<Shared>, mut reports: tokio::sync::mpsc::UnboundedReceiver<Report>) {
    while let Some(report) = reports.recv().await {
        let Some(shared) = shared.upgrade() else {
            return;
        };
        match report {
            Report::Read(place, reading) => shared.read(place, reading),
            Report::Failed(place, why) => shared.fail(place, &why),
        }
    }
    if let Some(shared) = shared.upgrade() {
        let all = shared.desk().readings.len();
        (0..all).for_each(|place| shared.fail(place, "nobody watches it any more"));
    }
}

impl Shared {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, place: usize, reading: Reading) {
        if let Some(known) = self.desk().readings.get_mut(place) {
            *known = reading;
        }
    }

    /// Takes a GPU out of service and tells who has it.
    fn fail(self: &Arc<Self>, place: usize, why: &str) {
        {
            let mut desk = self.desk();
            if !desk.assigner.fail(place, why) {
                return;
            }
            let uuid = desk.assigner.places.get(place).map(|place| &place.gpu.uuid);
            tracing::error!(uuid, why, "gpu failed");
            for (given, lost) in desk.grants.values() {
                if given.places.contains(&place) {
                    lost.cancel();
                }
            }
        }
        crate::metrics::gpu_lost();
        let (places, share) = (Arc::clone(&self.places), self.share);
        // Places in use are given up when their jobs end.
        tokio::spawn(async move {
            if let Ok(gone) = places.acquire_many_owned(share).await {
                gone.forget();
            }
        });
        self.settle();
    }

    /// Answers whom there is an answer for.
    fn settle(self: &Arc<Self>) {
        let mut unheard = Vec::new();
        {
            let mut desk = self.desk();
            for (number, answer) in desk.assigner.settle() {
                let waiter = desk.answers.remove(&number);
                let answer = match answer {
                    Answer::Unmet(unmet) => Err(unmet),
                    Answer::Given(given) => {
                        let lost = CancellationToken::new();
                        let uuids = given.places.iter();
                        let uuids = uuids.filter_map(|at| desk.assigner.places.get(*at));
                        let uuids = uuids.map(|place| place.gpu.uuid.clone()).collect();
                        desk.grants.insert(number, (given, lost.clone()));
                        Ok(Grant::new(number, uuids, lost, Arc::clone(self)))
                    }
                };
                // A grant that nobody hears of is given back when it is dropped, which needs the desk.
                match waiter {
                    None => unheard.push(answer),
                    Some(waiter) => unheard.extend(waiter.send(answer).err()),
                }
            }
            let short = desk.assigner.is_short();
            self.short
                .send_if_modified(|known| std::mem::replace(known, short) != short);
        }
        drop(unheard);
    }

    fn take_back(self: &Arc<Self>, number: u64) {
        {
            let mut desk = self.desk();
            if let Some((given, _)) = desk.grants.remove(&number) {
                desk.assigner.take_back(&given);
            }
        }
        self.settle();
    }

    /// Why one of these failed.
    fn why(&self, number: u64) -> String {
        let desk = self.desk();
        let places = desk
            .grants
            .get(&number)
            .map(|(given, _)| given.places.as_slice());
        let failed = places.unwrap_or_default().iter().find_map(|at| {
            let place = desk.assigner.places.get(*at)?;
            Some(format!("{}: {}", place.gpu.uuid, place.failure.as_deref()?))
        });
        failed.unwrap_or_else(|| "a gpu: it failed".to_owned())
    }
}

/// Takes its number off the list of those who wait, if it is still there, when it is dropped.
struct Waiting<'a> {
    number: u64,
    shared: &'a Arc<Shared>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let waited = {
            let mut desk = self.shared.desk();
            desk.assigner.forget(self.number);
            desk.answers.remove(&self.number).is_some()
        };
        if waited {
            self.shared.settle();
        }
    }
}
