//! Detection of a namespace that was emptied or replaced.

use std::time::{Duration, Instant};

use sandhog_core::id::Namespace;
use sandhog_queue::{Queue, QueueError};
use uuid::Uuid;

use crate::lease::{Interrupt, Leases};
use crate::metrics;

/// Time after the loss of a namespace in which no containers of other workers are removed. The
/// other workers use it to announce themselves again.
const REAP_PAUSE: Duration = Duration::from_secs(30);

/// Checks whether Redis still holds the namespace that this worker's leases belong to.
#[derive(Debug)]
pub(crate) struct NamespaceIdentity {
    namespace: Namespace,
    queue: Queue,
    /// The leases held in the namespace.
    leases: Leases,
    /// Identity at the last check; `None` before the first one. A namespace that was created anew
    /// has another identity.
    known: Option<Uuid>,
    /// Time of the last detected change of the identity.
    vanished: Option<Instant>,
}

impl NamespaceIdentity {
    /// Creates the check for the leases held in a namespace.
    pub(crate) fn new(namespace: Namespace, queue: Queue, leases: Leases) -> Self {
        Self {
            namespace,
            queue,
            leases,
            known: None,
            vanished: None,
        }
    }

    /// Reads the identity for the first time.
    pub(super) async fn read(&mut self) -> Result<(), QueueError> {
        self.known = Some(self.queue.identity().await?);
        metrics::namespace_vanished(&self.namespace, 0, 0);
        Ok(())
    }

    /// Returns whether the namespace was emptied or replaced since the last check. In that case,
    /// Redis does not have this worker's leases any more, and the results of running jobs would be
    /// rejected. So the worker's attempts are interrupted.
    pub(super) async fn has_changed(&mut self) -> Result<bool, QueueError> {
        let identity = self.queue.identity().await?;
        let known = self.known.replace(identity);
        if known.is_none_or(|known| known == identity) {
            return Ok(false);
        }
        let leases = self.leases.count();
        tracing::warn!(
            namespace = %self.namespace,
            leases,
            "the namespace vanished from redis, and the leases with it"
        );
        metrics::namespace_vanished(&self.namespace, 1, leases);
        self.vanished = Some(Instant::now());
        self.leases.interrupt_all(Interrupt::LeaseLost);
        Ok(true)
    }

    /// Returns whether the namespace changed so recently that live workers may not have announced
    /// themselves again.
    pub(super) fn has_changed_recently(&self) -> bool {
        self.vanished
            .is_some_and(|vanished| vanished.elapsed() < REAP_PAUSE)
    }
}
