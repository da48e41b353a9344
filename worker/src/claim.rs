//! From a ticket to a running attempt, never more of them than there are slots.
//!
//! Tickets are read only with as many free slots in hand: nothing is prefetched, so a slow worker never sits on work
//! that another could do.

use std::sync::Arc;
use std::time::Duration;

use sandhog_common::id::{Class, WorkerId};
use sandhog_common::queue::{Binding, QueueError, Ticket, TicketReader};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::attempt::{Attempts, Executor, Slot};
use crate::supervise::Patience;

/// The most tickets claimed at once, so that no call holds Redis up for long.
const TOGETHER: usize = 64;

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
    /// Whether no other namespace wants the slots.
    pub(crate) alone: bool,
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
            match self.claim_some(&mut reader, slot).await {
                Ok(()) => patience.restore(),
                Err(error) => patience.wear(&error, &stop).await,
            }
        }
    }

    async fn claim_some(
        &self,
        reader: &mut TicketReader,
        slot: OwnedSemaphorePermit,
    ) -> Result<(), QueueError> {
        let slots = self.free_slots(slot).await;
        let classes = self.classes.borrow().clone();
        let tickets = if self.alone {
            reader.some(&classes, slots.len(), BLOCK).await?
        } else {
            // Slots that wait here are missing elsewhere: they go back, and only the reader waits.
            reader.mark(&classes).await?;
            let tickets = reader.some(&classes, slots.len(), Duration::ZERO).await?;
            if tickets.is_empty() {
                drop(slots);
                return reader.watch(BLOCK).await;
            }
            tickets
        };
        if tickets.is_empty() {
            return Ok(());
        }
        for (binding, slot) in self.bind(&tickets).await?.into_iter().zip(slots) {
            let Binding::Bound(bound) = binding else {
                continue;
            };
            let attempts = Arc::clone(&self.attempts);
            self.running.spawn(async move {
                attempts.run(*bound, Slot::new(slot)).await;
            });
        }
        Ok(())
    }

    /// Every slot that is free. Attempts that were settled in one call are about to free theirs: lets those run that
    /// can, until none does.
    async fn free_slots(&self, slot: OwnedSemaphorePermit) -> Vec<OwnedSemaphorePermit> {
        let mut slots = vec![slot];
        let mut before = 0;
        while before < slots.len() && slots.len() < TOGETHER {
            before = slots.len();
            tokio::task::yield_now().await;
            while slots.len() < TOGETHER
                && let Ok(another) = Arc::clone(&self.slots).try_acquire_owned()
            {
                slots.push(another);
            }
        }
        slots
    }

    /// Binding is idempotent by ticket, so a lost answer is asked for again.
    async fn bind(&self, tickets: &[Ticket]) -> Result<Vec<Binding>, QueueError> {
        match self.attempts.queue.bind_all(tickets, &self.worker).await {
            Err(error) if error.is_transient() => {
                self.attempts.queue.bind_all(tickets, &self.worker).await
            }
            answered => answered,
        }
    }
}
