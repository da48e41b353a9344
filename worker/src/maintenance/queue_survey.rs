//! Metrics of the whole queue, and detection of work that no worker can do.

use std::collections::BTreeSet;
use std::sync::Arc;

use sandhog_core::class::Class;
use sandhog_core::id::Namespace;
use sandhog_queue::{Queue, QueueError, Snapshot, Unroutable};

use crate::capacity::Capacity;
use crate::health::{Health, WorkerPhase};
use crate::metrics::ClassLabels;
use crate::served_classes::ServedClasses;

/// Maximum number of classes that a warning names; the others are only counted.
const MAX_NAMED_CLASSES: usize = 3;

/// Reads the whole queue of one namespace.
#[derive(Debug)]
pub(crate) struct QueueSurvey {
    namespace: Namespace,
    queue: Queue,
    /// Memory and CPU for the jobs of all namespaces.
    capacity: Capacity,
    served: Arc<ServedClasses>,
    health: Arc<Health>,
    /// The classes that were unroutable at the last check.
    unroutable: BTreeSet<Class>,
    /// The classes that have their own metrics.
    labels: ClassLabels,
}

impl QueueSurvey {
    /// Creates the survey of a namespace.
    pub(crate) fn new(
        namespace: Namespace,
        queue: Queue,
        capacity: Capacity,
        served: Arc<ServedClasses>,
        health: Arc<Health>,
    ) -> Self {
        Self {
            namespace,
            queue,
            capacity,
            served,
            health,
            unroutable: BTreeSet::new(),
            labels: ClassLabels::default(),
        }
    }

    /// Reads the whole queue for its metrics. With `mark`, which is set if this worker does the
    /// namespace's maintenance, it also marks the unroutable classes. Classes that this worker
    /// serves are routable, so it checks only the others.
    pub(super) async fn survey_queue(&mut self, mark: bool) -> Result<(), QueueError> {
        let snapshot = self.queue.snapshot().await?;
        let draining = self.health.phase() == WorkerPhase::Draining;
        let tags = &self.served.offered();
        let serves = |class: &Class| class.is_covered_by(tags) && self.capacity.could_hold(class);
        let doubtful: Vec<&Class> = snapshot
            .classes
            .iter()
            .filter(|depth| depth.ready > 0)
            .map(|depth| &depth.class)
            .filter(|class| draining || !serves(class))
            .collect();
        let unroutable = if mark {
            self.queue.mark_unroutable(&doubtful).await?
        } else {
            self.queue.unroutable_among(&doubtful).await?
        };
        self.labels
            .measure(&self.namespace, &snapshot, &unroutable, serves);
        self.warn_of(&unroutable, &snapshot);
        Ok(())
    }

    /// Logs the classes that became unroutable since the last check and those that no longer are. A
    /// few are named, the others are only counted.
    fn warn_of(&mut self, unroutable: &[Unroutable], snapshot: &Snapshot) {
        let now: BTreeSet<Class> = unroutable.iter().map(|found| found.class.clone()).collect();
        let before = std::mem::replace(&mut self.unroutable, now);
        let new: Vec<&Unroutable> = (unroutable.iter())
            .filter(|found| !before.contains(&found.class))
            .collect();
        for found in new.iter().take(MAX_NAMED_CLASSES) {
            tracing::warn!(
                class = %found.class,
                jobs = found.jobs,
                lack = found.lack.as_str(),
                "no worker serves this class"
            );
        }
        if let Some(more) = new.get(MAX_NAMED_CLASSES..).filter(|more| !more.is_empty()) {
            let jobs: u64 = more.iter().map(|found| found.jobs).sum();
            tracing::warn!(
                classes = more.len(),
                jobs,
                of = snapshot.classes.len(),
                "no worker serves these further classes"
            );
        }
        let served: Vec<&Class> = before.difference(&self.unroutable).collect();
        for class in served.iter().take(MAX_NAMED_CLASSES) {
            tracing::info!(class = %class, "class is served, or has nothing ready");
        }
        if served.len() > MAX_NAMED_CLASSES {
            tracing::info!(
                classes = served.len() - MAX_NAMED_CLASSES,
                "more classes are served, or have nothing ready"
            );
        }
    }
}
