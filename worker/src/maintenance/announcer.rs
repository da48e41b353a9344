//! The worker's record in Redis, and the classes that the worker serves.

use std::sync::Arc;

use sandhog_config::WorkerSettings;
use sandhog_core::class::Class;
use sandhog_core::id::{Namespace, WorkerId};
use sandhog_core::units::{Millis, UnixMillis};
use sandhog_queue::{Queue, QueueError, WorkerFacts};

use super::worker_load::WorkerLoad;
use crate::capacity::Capacity;
use crate::health::{Health, WorkerPhase};
use crate::served_classes::ServedClasses;
use crate::worker_id::host_name;

/// Shortest time for which a worker's record is kept after its last announcement.
const MIN_RECORD_LIFETIME_MS: u64 = 30_000;

/// Announces the worker in one namespace and refreshes the classes that it serves there.
#[derive(Debug)]
pub(crate) struct Announcer {
    pub(crate) namespace: Namespace,
    pub(crate) queue: Queue,
    pub(crate) worker: WorkerId,
    pub(crate) settings: WorkerSettings,
    /// Memory and CPU for the jobs of all namespaces.
    pub(crate) capacity: Capacity,
    pub(crate) health: Arc<Health>,
    pub(crate) started_at: UnixMillis,
    pub(crate) served: Arc<ServedClasses>,
    pub(crate) load: Arc<WorkerLoad>,
}

impl Announcer {
    /// Writes the worker's record.
    pub(super) async fn announce(&self) -> Result<(), QueueError> {
        let facts = WorkerFacts {
            id: self.worker.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            host: host_name(),
            pid: std::process::id(),
            started_at: self.started_at,
            draining: self.health.phase() == WorkerPhase::Draining,
            tags: self.served.offered(),
            slots: u32::try_from(self.load.slots()).unwrap_or(u32::MAX),
            busy: u32::try_from(self.load.busy()).unwrap_or(u32::MAX),
            pool: self.load.pool_counts().map(|counts| counts.facts()),
            largest: self.capacity.largest(),
            max_payload: Some(self.settings.max_payload),
            reserved_for: self.capacity.advance_reservation(&self.namespace),
            models: self.load.model_facts(),
            gpus: self.load.gpus(),
        };
        self.queue.announce(&facts, self.record_lifetime()).await
    }

    /// Returns the time for which the worker's record is kept after its last announcement: two
    /// leases, and at least 30 seconds.
    fn record_lifetime(&self) -> Millis {
        let two_leases = self.settings.lease_ms.0.saturating_mul(2);
        Millis(two_leases.max(MIN_RECORD_LIFETIME_MS))
    }

    /// Refreshes the classes to claim from: the known classes that the worker's tags cover and
    /// whose jobs fit its capacity, and the default class even before its first job arrives.
    pub(super) async fn refresh_classes(&self) -> Result<(), QueueError> {
        let mut known: Vec<Class> = self.queue.classes().await?;
        known.push(Class::default());
        known.retain(|class| self.capacity.could_hold(class));
        self.served.serve(known).await
    }
}
