//! The classes that each claim loop of a namespace serves, and the tags that the worker offers.
//!
//! Jobs for GPUs have their own claim loop, with as many slots as jobs may hold GPUs. They
//! neither wait behind CPU jobs nor are claimed before a GPU is free for them. The tags that a
//! worker offers change when a GPU fails.

use std::collections::BTreeSet;

use sandhog_core::class::Class;
use sandhog_core::gpu::{GpuFacts, gpu_class, gpu_tag};
use sandhog_core::id::Tag;
use sandhog_queue::{QueueError, Unblocker};
use tokio::sync::watch;

use crate::gpu::Gpus;

/// The classes of one claim loop.
#[derive(Debug)]
pub(crate) struct ClassFeed {
    /// `true` for the loop that claims GPU jobs, `false` for the loop that claims all others.
    pub(crate) for_gpus: bool,
    /// The classes to claim from, updated as the worker learns of new ones.
    pub(crate) classes: watch::Sender<Vec<Class>>,
    /// Unblocks the loop's reader, so that it rereads the classes.
    pub(crate) reader: Unblocker,
}

/// The classes of all claim loops of one namespace.
#[derive(Debug)]
pub(crate) struct ServedClasses {
    tags: BTreeSet<Tag>,
    gpus: Option<Gpus>,
    feeds: Vec<ClassFeed>,
}

impl ServedClasses {
    /// Creates the classes of these claim loops, for a worker with these tags and GPUs.
    pub(crate) fn new(tags: BTreeSet<Tag>, gpus: Option<Gpus>, feeds: Vec<ClassFeed>) -> Self {
        Self { tags, gpus, feeds }
    }

    /// Returns the tags that the worker offers now.
    pub(crate) fn offered(&self) -> BTreeSet<Tag> {
        match &self.gpus {
            Some(gpus) => gpus.offered(&self.tags),
            None => self.tags.clone(),
        }
    }

    /// Returns the tags that the worker offers to jobs without a GPU.
    pub(crate) fn without_gpus(&self) -> BTreeSet<Tag> {
        let mut tags = self.offered();
        if let Some(gpus) = &self.gpus {
            tags.retain(|tag| !gpus.serves_tag(tag));
        }
        tags
    }

    /// Returns the number of jobs that can run at once, where `without` is the number of slots for
    /// jobs without a GPU.
    pub(crate) fn slots(&self, without: usize) -> usize {
        let Some(gpus) = self.gpus.as_ref().filter(|gpus| gpus.has_any()) else {
            return without;
        };
        let others = self.offered().iter().any(|tag| !gpus.serves_tag(tag));
        gpus.max_jobs() + if others { without } else { 0 }
    }

    /// Returns the served classes whose jobs wait for capacity only. GPU classes are included while
    /// a GPU is free.
    pub(crate) fn waiting_for_capacity(&self) -> Vec<Class> {
        let free = self.gpus.as_ref().is_some_and(Gpus::has_free);
        let feeds = self.feeds.iter().filter(|feed| free || !feed.for_gpus);
        feeds
            .flat_map(|feed| feed.classes.borrow().clone())
            .collect()
    }

    /// Returns the state of each GPU.
    pub(crate) fn gpus(&self) -> Vec<GpuFacts> {
        self.gpus.as_ref().map(Gpus::facts).unwrap_or_default()
    }

    /// Serves all of these classes that the worker's tags cover.
    pub(crate) async fn serve(&self, mut known: Vec<Class>) -> Result<(), QueueError> {
        let offered = self.offered();
        // The GPU class is served even before the first job of that class arrives.
        known.extend(offered.contains(&gpu_tag()).then(gpu_class));
        known.retain(|class| class.is_covered_by(&offered));
        known.sort();
        known.dedup();
        for feed in &self.feeds {
            let served: Vec<Class> = known
                .iter()
                .filter(|class| self.is_for_gpus(class) == feed.for_gpus)
                .cloned()
                .collect();
            let changed = feed.classes.send_if_modified(|before| {
                let changed = *before != served;
                *before = served;
                changed
            });
            if changed {
                feed.reader.unblock().await?;
            }
        }
        Ok(())
    }

    fn is_for_gpus(&self, class: &Class) -> bool {
        self.gpus
            .as_ref()
            .is_some_and(|gpus| gpus.serves_class(class))
    }
}
