//! The advance reservation for a job that has been passed over for a long time.

use std::sync::Arc;

use sandhog_core::class::Class;
use sandhog_core::id::{Namespace, WorkerId};
use sandhog_core::units::Millis;
use sandhog_queue::{Queue, QueueError};

use crate::capacity::Capacity;
use crate::health::{Health, WorkerPhase};
use crate::served_classes::ServedClasses;

/// Lifetime of an advance reservation that is not renewed: a few turns.
const ADVANCE_RESERVATION_LIFETIME: Millis = Millis(3_000);

/// Makes and ends the advance reservation in one namespace.
#[derive(Debug)]
pub(crate) struct Reserver {
    pub(crate) namespace: Namespace,
    pub(crate) queue: Queue,
    pub(crate) worker: WorkerId,
    /// Time after which a job has waited too long.
    pub(crate) reserve_after: Millis,
    /// Memory and CPU for the jobs of all namespaces.
    pub(crate) capacity: Capacity,
    /// `true` if no other namespace uses that capacity.
    pub(crate) is_only_namespace: bool,
    pub(crate) served: Arc<ServedClasses>,
    pub(crate) health: Arc<Health>,
}

impl Reserver {
    /// Makes or ends the advance reservation, if Redis assigns it to this worker.
    pub(super) async fn update_reservation(&self) -> Result<(), QueueError> {
        let served = self.served.waiting_for_capacity();
        let lacks = |class: &Class| self.capacity.fits(&self.namespace, class) == 0;
        let reserved = self.capacity.advance_reservation(&self.namespace);
        let is_crowded = served.iter().any(lacks) || reserved.is_some();
        let has_rivals = served.len() > 1 || !self.is_only_namespace;
        if !is_crowded || !has_rivals || self.health.phase() == WorkerPhase::Draining {
            return Ok(());
        }
        let (after, lifetime) = (self.reserve_after, ADVANCE_RESERVATION_LIFETIME);
        match (self.queue)
            .reserve(&self.worker, after, lifetime, &served)
            .await?
        {
            Some(class) => self.capacity.reserve_in_advance(&self.namespace, &class),
            None => self.capacity.cancel_advance_reservation(&self.namespace),
        }
        Ok(())
    }
}
