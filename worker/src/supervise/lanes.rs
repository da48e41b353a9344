//! Which classes each claiming loop of a namespace serves.
//!
//! Jobs for GPUs have a loop of their own, with as many places as jobs may have GPUs: they neither wait behind jobs for
//! CPUs nor are claimed before there is a GPU for them. What a worker offers changes when a GPU fails.

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
    /// Whether it claims jobs for GPUs, or all others.
    pub(super) for_gpus: bool,
    /// The classes it claims from, as they become known.
    pub(super) classes: watch::Sender<Vec<Class>>,
    /// What makes it look at them anew.
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
    /// A worker with these tags and GPUs claims by these loops.
    pub(super) fn new(tags: BTreeSet<Tag>, gpus: Option<Gpus>, lanes: Vec<Lane>) -> Self {
        Self { tags, gpus, lanes }
    }

    /// What the worker offers now.
    pub(super) fn offered(&self) -> BTreeSet<Tag> {
        match &self.gpus {
            Some(gpus) => gpus.offered(&self.tags),
            None => self.tags.clone(),
        }
    }

    /// What it offers to jobs that want no GPU.
    pub(super) fn without_gpus(&self) -> BTreeSet<Tag> {
        let mut tags = self.offered();
        if let Some(gpus) = &self.gpus {
            tags.retain(|tag| !gpus.claims(tag));
        }
        tags
    }

    /// Jobs at once, where so many slots are for those without a GPU.
    pub(super) fn slots(&self, without: usize) -> usize {
        let Some(gpus) = self.gpus.as_ref().filter(|gpus| gpus.any()) else {
            return without;
        };
        let others = self.offered().iter().any(|tag| !gpus.claims(tag));
        gpus.most_jobs() + if others { without } else { 0 }
    }

    /// The classes it serves whose jobs wait for nothing but room: those for GPUs while some GPU is free.
    pub(super) fn short_of_room(&self) -> Vec<Class> {
        let free = self.gpus.as_ref().is_some_and(Gpus::any_free);
        let lanes = self.lanes.iter().filter(|lane| free || !lane.for_gpus);
        lanes
            .flat_map(|lane| lane.classes.borrow().clone())
            .collect()
    }

    /// How the GPUs are.
    pub(super) fn gpus(&self) -> Vec<GpuFacts> {
        self.gpus.as_ref().map(Gpus::facts).unwrap_or_default()
    }

    /// Serves every one of these classes that the worker's tags cover.
    pub(super) async fn learn(&self, mut known: Vec<Class>) -> Result<(), QueueError> {
        let offered = self.offered();
        // Before anybody asked for it.
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
