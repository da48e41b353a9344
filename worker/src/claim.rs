//! From a ticket to a running attempt, never more of them than there are slots.
//!
//! A ticket is read only with a free slot in hand: nothing is prefetched, so a slow worker never sits on work that
//! another could do.

use std::sync::Arc;
use std::time::Duration;

use sandhog_common::id::{Class, WorkerId};
use sandhog_common::queue::{Binding, QueueError, Ticket, TicketReader};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::attempt::{Attempts, Executor};
use crate::supervise::Patience;

/// How long one blocking read waits.
const BLOCK: Duration = Duration::from_secs(5);

/// What the claiming loop needs.
#[derive(Debug)]
pub(crate) struct Claim<E> {
    /// Runs what is claimed.
    pub(crate) attempts: Arc<Attempts<E>>,
    /// Who claims.
    pub(crate) worker: WorkerId,
    /// Free slots.
    pub(crate) slots: Arc<Semaphore>,
    /// The classes this worker serves, as they become known.
    pub(crate) classes: watch::Receiver<Vec<Class>>,
    /// Running attempts.
    pub(crate) running: TaskTracker,
}

impl<E: Executor> Claim<E> {
    /// Claims until `stop`; the reader is unblocked by then.
    ///
    /// # Cancel safety
    /// Not cancel safe: a ticket in hand would lie until its lease lapses. It is spawned, never raced.
    pub(crate) async fn run(self, mut reader: TicketReader, stop: CancellationToken) {
        let mut patience = Patience::new("claim");
        while let Some(slot) = stop
            .run_until_cancelled(self.slots.clone().acquire_owned())
            .await
        {
            let Ok(slot) = slot else { return };
            match self.claim_one(&mut reader, slot).await {
                Ok(()) => patience.restore(),
                Err(error) => patience.wear(&error, &stop).await,
            }
        }
    }

    async fn claim_one(
        &self,
        reader: &mut TicketReader,
        slot: OwnedSemaphorePermit,
    ) -> Result<(), QueueError> {
        let classes = self.classes.borrow().clone();
        let Some(ticket) = reader.next(&classes, BLOCK).await? else {
            return Ok(());
        };
        match self.bind(&ticket).await? {
            Binding::Nothing => {}
            Binding::Bound(bound) => {
                let attempts = Arc::clone(&self.attempts);
                self.running.spawn(async move {
                    attempts.run(*bound).await;
                    drop(slot);
                });
            }
        }
        Ok(())
    }

    /// Binding is idempotent by ticket, so a lost answer is asked for again.
    async fn bind(&self, ticket: &Ticket) -> Result<Binding, QueueError> {
        match self.attempts.queue.bind(ticket, &self.worker).await {
            Err(error) if error.is_transient() => {
                self.attempts.queue.bind(ticket, &self.worker).await
            }
            answered => answered,
        }
    }
}
