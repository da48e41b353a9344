//! GPUs of the worker: discovery through the driver's library, assignment to jobs, and health
//! checks.
//!
//! Each GPU is offered as tags, is given to one job at a time or shared by memory, and is taken out
//! of service when it fails. On a machine without the driver there are none, and the worker runs
//! only jobs that need no GPU.
//!
//! The tag `gpu` is more than a label: a worker without a working GPU never offers it, and a job of
//! a class that contains it gets a GPU. The holder of a GPU that fails is notified at once, and its
//! job is lost through a fault of the service.
//!
//! A failed GPU is never assigned. Two jobs share a GPU only if both state how much of its memory
//! they use.

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

/// Environment variable in which a program finds the driver's names of its GPUs, separated by
/// commas.
pub const GPUS_VARIABLE: &str = "SANDHOG_GPUS";

/// The GPUs of one worker. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Gpus {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// The tags of all models present when the worker started, including those of failed GPUs.
    models: Vec<Tag>,
    /// One permit for each job that may be claimed for GPUs.
    places: Arc<Semaphore>,
    share: u32,
    desk: Mutex<Desk>,
    /// True while a demand waits for a GPU.
    short: watch::Sender<bool>,
    _watching: DropGuard,
}

#[derive(Debug)]
struct Desk {
    assigner: Assigner,
    readings: Vec<Reading>,
    answers: HashMap<u64, oneshot::Sender<Result<Grant, Unmet>>>,
    /// Current grants by number, each with the token that notifies its holder of a failure.
    grants: HashMap<u64, (Given, CancellationToken)>,
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
        let (library, found) = match look_with(settings.clone()).await {
            Ok(found) => found,
            Err(error) if settings.library.is_some() => return Err(error),
            Err(error @ GpuError::NoLibrary { .. }) => {
                // The usual machine has none, so this is logged at debug level only.
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

    /// Returns whether there were any GPUs when the worker started.
    #[must_use]
    pub fn any(&self) -> bool {
        !self.shared.desk().readings.is_empty()
    }

    /// Returns whether a working GPU has no holder.
    #[must_use]
    pub fn any_free(&self) -> bool {
        let desk = self.shared.desk();
        let mut places = desk.assigner.places.iter();
        places.any(|place| place.failure.is_none() && place.holders == 0)
    }

    /// Returns the tags that a worker configured with `tags` offers: `gpu` and the models' tags
    /// only while such a GPU works, and always then.
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

    /// Returns whether jobs of this class get a GPU: the class has the tag `gpu` or the tag of one
    /// of this worker's models.
    #[must_use]
    pub fn serve(&self, class: &Class) -> bool {
        class.tags().any(|tag| self.names_gpus(tag))
    }

    /// Returns whether jobs that ask for this tag get a GPU.
    #[must_use]
    pub fn claims(&self, tag: &Tag) -> bool {
        self.names_gpus(tag.as_str())
    }

    fn names_gpus(&self, tag: &str) -> bool {
        tag == GPU_TAG || self.shared.models.iter().any(|model| model.as_str() == tag)
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
        Demand::read(job, image, class, self.serve(class), &self.shared.models)
    }

    /// Waits until GPUs that meet the demand are free, and returns them.
    ///
    /// # Errors
    /// If this worker does not have enough such GPUs in working order.
    ///
    /// # Cancel safety
    /// Cancel safe: dropping the future gives up its place in the queue, or the GPUs already
    /// granted.
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
            .expect("a waiter gets its answer before its sender is dropped")
    }

    /// Returns whether the working GPUs could meet the demand if all were free.
    #[must_use]
    pub fn could_meet(&self, demand: &Demand) -> bool {
        self.shared.desk().assigner.could_meet(demand)
    }

    /// Returns whether the demand could be met if every GPU outside `kept` were free.
    #[must_use]
    pub fn could_meet_beside(&self, demand: &Demand, kept: &[String]) -> bool {
        let desk = self.shared.desk();
        // A holder without a GPU blocks no demand.
        kept.is_empty() || desk.assigner.could_meet_beside(demand, kept)
    }

    /// Returns a semaphore with one permit for each job that may be claimed for GPUs: the number of
    /// jobs that may share the working ones.
    #[must_use]
    pub fn places(&self) -> Arc<Semaphore> {
        Arc::clone(&self.shared.places)
    }

    /// Returns the number of jobs that may have GPUs at once.
    #[must_use]
    pub fn most_jobs(&self) -> usize {
        let healthy = self.shared.desk().assigner.healthy().count();
        healthy * usize::try_from(self.shared.share).unwrap_or(usize::MAX)
    }

    /// Returns the state of each GPU, including failed ones.
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

/// Finds the GPUs without assigning any. For `doctor`.
///
/// # Errors
/// If there is no library, it does not work, or a configured GPU does not exist.
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

/// Applies the reports of the health thread for as long as the GPUs are in use. If the thread ends
/// by itself, all GPUs count as failed, because their health is no longer known.
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
        (0..all).for_each(|place| shared.fail(place, "its health thread has ended"));
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

    /// Takes a GPU out of service and notifies its holders.
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
        // Permits in use are removed when their jobs end.
        tokio::spawn(async move {
            if let Ok(gone) = places.acquire_many_owned(share).await {
                gone.forget();
            }
        });
        self.settle();
    }

    /// Sends every answer that is known now.
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
                // An unreceived grant is returned when it is dropped, which takes the lock again.
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

    /// Returns the failure of one of a grant's GPUs.
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

/// Guard of a waiting demand: dropping it removes the demand from the queue, if it is still there.
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
