//! Turns tickets into running attempts, never more of them than there are slots.
//!
//! The loop reads tickets only while it holds a free slot for each of them, and only of classes
//! whose jobs fit the free capacity. Nothing is prefetched, so a worker never holds work that
//! another worker could run.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use sandhog_core::class::Class;
use sandhog_core::id::{Namespace, WorkerId};
use sandhog_queue::{Binding, QueueError, Ticket, TicketReader, Unblocker};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::attempt::{Attempts, Executor, Slot};
use crate::backoff::LoopBackoff;
use crate::capacity::{Capacity, Reservation};

/// Maximum number of tickets per claim, so that no call occupies Redis for long.
const CLAIM_BATCH_SIZE: usize = 64;

/// Timeout of one blocking read.
const TICKET_READ_TIMEOUT: Duration = Duration::from_secs(5);

/// State of the claim loop.
#[derive(Debug)]
pub(crate) struct ClaimLoop<E> {
    /// Runs the claimed jobs.
    pub(crate) attempts: Arc<Attempts<E>>,
    /// The worker that claims.
    pub(crate) worker: WorkerId,
    /// The namespace to claim from.
    pub(crate) namespace: Namespace,
    /// Free slots.
    pub(crate) slots: Arc<Semaphore>,
    /// Memory and CPU for jobs.
    pub(crate) capacity: Capacity,
    /// `true` if this worker serves no other namespace that uses the slots.
    pub(crate) is_only_namespace: bool,
    /// The classes that this worker serves, updated as it learns of new ones.
    pub(crate) classes: watch::Receiver<Vec<Class>>,
    /// Running attempts.
    pub(crate) running: TaskTracker,
    /// Number of claims so far; rotates the class that is read first.
    pub(crate) turn: usize,
    /// Set to `true` while no slot is free.
    pub(crate) full: watch::Sender<bool>,
}

/// The classes whose jobs fit, observed at one moment.
struct ClassView {
    known: Vec<Class>,
    fitting: Vec<Class>,
    /// Changes when the set of classes that fit may have changed.
    changes: watch::Receiver<()>,
}

impl<E: Executor> ClaimLoop<E> {
    /// Claims until `stop` is cancelled. The caller unblocks the reader after that.
    ///
    /// # Cancel safety
    /// Not cancel safe: if the future is dropped, a ticket that was read stays pending until its
    /// lease expires. It is spawned as a task, never used in a `select!`.
    pub(crate) async fn run(mut self, mut reader: TicketReader, stop: CancellationToken) {
        let mut backoff = LoopBackoff::new("claim");
        while let Some(slot) = stop.run_until_cancelled(self.next_slot()).await {
            let Ok(slot) = slot else { return };
            match self.claim_batch(&mut reader, slot, &stop).await {
                Ok(()) => backoff.reset(),
                Err(error) => backoff.record_failure(&error, &stop).await,
            }
        }
    }

    /// Waits for the next free slot and sets `full` while there is none.
    async fn next_slot(&self) -> Result<OwnedSemaphorePermit, AcquireError> {
        if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
            return Ok(slot);
        }
        self.full.send_replace(true);
        let slot = Arc::clone(&self.slots).acquire_owned().await;
        self.full.send_replace(false);
        slot
    }

    async fn claim_batch(
        &mut self,
        reader: &mut TicketReader,
        slot: OwnedSemaphorePermit,
        stop: &CancellationToken,
    ) -> Result<(), QueueError> {
        let slots = self.free_slots(slot).await;
        let known = self.classes.borrow_and_update().clone();
        let view = self.view(known);
        if view.fitting.is_empty() && !view.known.is_empty() {
            // No job fits. Release the slots: other namespaces could use them while this loop
            // waits.
            drop(slots);
            let mut changes = view.changes;
            tokio::select! {
                _capacity = changes.changed() => {}
                _classes = self.classes.changed() => {}
                () = stop.cancelled() => {}
            }
            return Ok(());
        }
        let unblocker = reader.unblocker();
        let (tickets, reservations) = if self.is_only_namespace {
            let reading = self.read(reader, &view.fitting, slots.len(), TICKET_READ_TIMEOUT);
            self.wait_or_unblock_on_new_fit(&view, unblocker, reading)
                .await?
        } else {
            // Slots that wait here could be used by other namespaces. So the first read does not
            // block; if it finds nothing, the slots are released and only the reader waits.
            reader.remember_tail(&view.fitting).await?;
            let found = self
                .read(reader, &view.fitting, slots.len(), Duration::ZERO)
                .await?;
            if found.0.is_empty() {
                drop(slots);
                let watching = reader.wait_past_tail(TICKET_READ_TIMEOUT);
                return self
                    .wait_or_unblock_on_new_fit(&view, unblocker, watching)
                    .await;
            }
            found
        };
        if tickets.is_empty() {
            return Ok(());
        }
        let bindings = self.bind(&tickets).await?;
        for ((binding, reservation), slot) in bindings.into_iter().zip(reservations).zip(slots) {
            let Binding::Bound(bound) = binding else {
                continue;
            };
            let attempts = Arc::clone(&self.attempts);
            self.running.spawn(async move {
                attempts.run(*bound, Slot::new(slot, reservation)).await;
            });
        }
        Ok(())
    }

    /// Determines which of these classes have jobs that fit now. The class with an advance
    /// reservation comes first; the order of the others rotates with each call.
    fn view(&mut self, known: Vec<Class>) -> ClassView {
        let changes = self.capacity.changes();
        let mut fitting = self.fitting(&known);
        if !fitting.is_empty() {
            let first = self.turn % fitting.len();
            fitting.rotate_left(first);
        }
        self.turn = self.turn.wrapping_add(1);
        if let Some(reserved) = self.capacity.advance_reservation(&self.namespace) {
            fitting.sort_by_key(|class| *class != reserved);
        }
        ClassView {
            known,
            fitting,
            changes,
        }
    }

    fn fitting(&self, known: &[Class]) -> Vec<Class> {
        let fits = |class: &&Class| self.capacity.fits(&self.namespace, class) > 0;
        known.iter().filter(fits).cloned().collect()
    }

    /// Reads at most `most` tickets of these classes and reserves capacity for their jobs. Waits at
    /// most `block` for the first ticket.
    async fn read(
        &self,
        reader: &mut TicketReader,
        fitting: &[Class],
        most: usize,
        block: Duration,
    ) -> Result<(Vec<Ticket>, Vec<Reservation>), QueueError> {
        let fits = |class| self.capacity.fits(&self.namespace, class);
        let alike = fitting.windows(2).all(|two| match two {
            [one, other] => one.size() == other.size(),
            _ => true,
        });
        if alike {
            let most = fitting.iter().map(fits).min().unwrap_or(most).min(most);
            let tickets = reader.read(fitting, most, block).await?;
            return self.reserve_for_each(tickets).await;
        }
        let (mut tickets, mut reservations) = (Vec::new(), Vec::new());
        for class in fitting {
            let found = reader.try_read(class, fits(class).min(most - tickets.len()));
            let (mut more, mut more_reservations) = self.reserve_for_each(found.await?).await?;
            tickets.append(&mut more);
            reservations.append(&mut more_reservations);
        }
        if tickets.is_empty() && !block.is_zero() {
            let found = reader.read_one(fitting, block).await?;
            return self.reserve_for_each(found.into_iter().collect()).await;
        }
        Ok((tickets, reservations))
    }

    /// Reserves capacity for the job of each ticket. Returns a ticket to the queue if other jobs
    /// have taken its capacity in the meantime.
    async fn reserve_for_each(
        &self,
        tickets: Vec<Ticket>,
    ) -> Result<(Vec<Ticket>, Vec<Reservation>), QueueError> {
        let (mut reserved, mut reservations, mut surplus) = (Vec::new(), Vec::new(), Vec::new());
        for ticket in tickets {
            match self.capacity.reserve(&self.namespace, &ticket.class) {
                Some(reservation) => {
                    reserved.push(ticket);
                    reservations.push(reservation);
                }
                None => surplus.push(ticket),
            }
        }
        if !surplus.is_empty() {
            let queue = &self.attempts.queue;
            queue.return_tickets(&surplus, &self.worker).await?;
        }
        Ok((reserved, reservations))
    }

    /// Waits for `reading`. Ends it through its unblocker when jobs of another class fit that did
    /// not fit before.
    async fn wait_or_unblock_on_new_fit<T>(
        &self,
        view: &ClassView,
        unblocker: Unblocker,
        reading: impl Future<Output = Result<T, QueueError>>,
    ) -> Result<T, QueueError> {
        let mut reading = pin!(reading);
        let mut changes = view.changes.clone();
        while view.fitting.len() < view.known.len() {
            tokio::select! {
                read = &mut reading => return read,
                _capacity = changes.changed() => {}
            }
            let fitting = self.fitting(&view.known);
            if fitting.iter().any(|class| !view.fitting.contains(class)) {
                // The read must be polled while it is unblocked, because the unblocking makes it
                // return.
                let (read, unblocked) = tokio::join!(reading, unblocker.unblock());
                if let Err(error) = unblocked {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "reader not unblocked"
                    );
                }
                return read;
            }
        }
        reading.await
    }

    /// Collects every free slot. Attempts that were settled in one call release their slots one
    /// after another, so this yields to the other tasks until a pass finds no more free slot.
    async fn free_slots(&self, slot: OwnedSemaphorePermit) -> Vec<OwnedSemaphorePermit> {
        let mut slots = vec![slot];
        let mut before = 0;
        while before < slots.len() && slots.len() < CLAIM_BATCH_SIZE {
            before = slots.len();
            tokio::task::yield_now().await;
            while slots.len() < CLAIM_BATCH_SIZE
                && let Ok(another) = Arc::clone(&self.slots).try_acquire_owned()
            {
                slots.push(another);
            }
        }
        slots
    }

    /// Binds the tickets. Binding is idempotent per ticket, so the call is repeated once after a
    /// transient error.
    async fn bind(&self, tickets: &[Ticket]) -> Result<Vec<Binding>, QueueError> {
        match self.attempts.queue.bind_all(tickets, &self.worker).await {
            Err(error) if error.is_transient() => {
                self.attempts.queue.bind_all(tickets, &self.worker).await
            }
            answered => answered,
        }
    }
}
