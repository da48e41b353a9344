//! The claiming loops of a namespace and the classes that each of them serves.
//!
//! Jobs for GPUs have their own loop, with as many places as jobs may hold GPUs. They neither wait
//! behind CPU jobs nor are claimed before a GPU is free for them. The tags that a worker offers
//! change when a GPU fails.

use std::collections::BTreeSet;

use sandhog_common::class::Class;
use sandhog_common::gpu::{GpuFacts, gpu_class, gpu_tag};
use sandhog_common::id::Tag;
use sandhog_common::queue::{QueueError, Unblocker};
use tokio::sync::watch;

use crate::gpu::Gpus;

/// One claiming loop.
#[derive(Debug)]
pub(super) struct Lane {
    /// `true` for the loop that claims GPU jobs, `false` for the loop that claims all others.
    pub(super) for_gpus: bool,
    /// The classes to claim from, updated as the worker learns of new ones.
    pub(super) classes: watch::Sender<Vec<Class>>,
    /// Unblocks the loop's reader, so that it rereads the classes.
    pub(super) reader: Unblocker,
}

/// The claiming loops of one namespace.
#[derive(Debug)]
pub(super) struct Lanes {
    tags: BTreeSet<Tag>,
    gpus: Option<Gpus>,
    lanes: Vec<Lane>,
}

impl Lanes {
    /// Creates the set of loops for a worker with these tags and GPUs.
    pub(super) fn new(tags: BTreeSet<Tag>, gpus: Option<Gpus>, lanes: Vec<Lane>) -> Self {
        Self { tags, gpus, lanes }
    }

    /// Returns the tags that the worker offers now.
    pub(super) fn offered(&self) -> BTreeSet<Tag> {
        match &self.gpus {
            Some(gpus) => gpus.offered(&self.tags),
            None => self.tags.clone(),
        }
    }

    /// Returns the tags that the worker offers to jobs without a GPU.
    pub(super) fn without_gpus(&self) -> BTreeSet<Tag> {
        let mut tags = self.offered();
        if let Some(gpus) = &self.gpus {
            tags.retain(|tag| !gpus.claims(tag));
        }
        tags
    }

    /// Returns the number of jobs that can run at once, where `without` is the number of slots for
    /// jobs without a GPU.
    pub(super) fn slots(&self, without: usize) -> usize {
        let Some(gpus) = self.gpus.as_ref().filter(|gpus| gpus.any()) else {
            return without;
        };
        let others = self.offered().iter().any(|tag| !gpus.claims(tag));
        gpus.most_jobs() + if others { without } else { 0 }
    }

    /// Returns the served classes whose jobs wait for capacity only. GPU classes are included while
    /// a GPU is free.
    pub(super) fn short_of_room(&self) -> Vec<Class> {
        let free = self.gpus.as_ref().is_some_and(Gpus::any_free);
        let lanes = self.lanes.iter().filter(|lane| free || !lane.for_gpus);
        lanes
            .flat_map(|lane| lane.classes.borrow().clone())
            .collect()
    }

    /// Returns the state of each GPU.
    pub(super) fn gpus(&self) -> Vec<GpuFacts> {
        self.gpus.as_ref().map(Gpus::facts).unwrap_or_default()
    }

    /// Serves all of these classes that the worker's tags cover.
    pub(super) async fn learn(&self, mut known: Vec<Class>) -> Result<(), QueueError> {
        let offered = self.offered();
        // The GPU class is served even before the first job of that class arrives.
        known.extend(offered.contains(&gpu_tag()).then(gpu_class));
        known.retain(|class| class.is_covered_by(&offered));
        known.sort();
        known.dedup();
        for lane in &self.lanes {
            let served: Vec<Class> = known
                .iter()
                .filter(|class| self.is_for_gpus(class) == lane.for_gpus)
                .cloned()
                .collect();
            let changed = lane.classes.send_if_modified(|before| {
                let changed = *before != served;
                *before = served;
                changed
            });
            if changed {
                lane.reader.unblock().await?;
            }
        }
        Ok(())
    }

    fn is_for_gpus(&self, class: &Class) -> bool {
        self.gpus.as_ref().is_some_and(|gpus| gpus.serve(class))
    }
}
