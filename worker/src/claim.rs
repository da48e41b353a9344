//! Turns tickets into running attempts, never more of them than there are slots.
//!
//! The loop reads tickets only while it holds a free slot for each of them, and only of classes
//! whose jobs fit the free capacity. Nothing is prefetched, so a worker never holds work that
//! another worker could run.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use sandhog_common::class::Class;
use sandhog_common::id::{Namespace, WorkerId};
use sandhog_common::queue::{Binding, QueueError, Ticket, TicketReader, Unblocker};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::attempt::{Attempts, Executor, Slot};
use crate::room::{Hold, Room};
use crate::supervise::Patience;

/// Maximum number of tickets per claim, so that no call occupies Redis for long.
const TOGETHER: usize = 64;

/// Timeout of one blocking read.
const BLOCK: Duration = Duration::from_secs(5);

/// State of the claiming loop.
#[derive(Debug)]
pub(crate) struct Claim<E> {
    /// Runs the claimed jobs.
    pub(crate) attempts: Arc<Attempts<E>>,
    /// The worker that claims.
    pub(crate) worker: WorkerId,
    /// The namespace to claim from.
    pub(crate) namespace: Namespace,
    /// Free slots.
    pub(crate) slots: Arc<Semaphore>,
    /// Memory and CPU for jobs.
    pub(crate) room: Room,
    /// `true` if this worker serves no other namespace that uses the slots.
    pub(crate) alone: bool,
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
struct View {
    known: Vec<Class>,
    open: Vec<Class>,
    /// Changes when the set of classes that fit may have changed.
    changes: watch::Receiver<()>,
}

impl<E: Executor> Claim<E> {
    /// Claims until `stop` is cancelled. The caller unblocks the reader after that.
    ///
    /// # Cancel safety
    /// Not cancel safe: if the future is dropped, a ticket that was read stays pending until its
    /// lease expires. It is spawned as a task, never used in a `select!`.
    pub(crate) async fn run(mut self, mut reader: TicketReader, stop: CancellationToken) {
        let mut patience = Patience::new("claim");
        while let Some(slot) = stop.run_until_cancelled(self.slot()).await {
            let Ok(slot) = slot else { return };
            match self.claim_some(&mut reader, slot, &stop).await {
                Ok(()) => patience.restore(),
                Err(error) => patience.wear(&error, &stop).await,
            }
        }
    }

    /// Waits for the next free slot and sets `full` while there is none.
    async fn slot(&self) -> Result<OwnedSemaphorePermit, AcquireError> {
        if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
            return Ok(slot);
        }
        self.full.send_replace(true);
        let slot = Arc::clone(&self.slots).acquire_owned().await;
        self.full.send_replace(false);
        slot
    }

    async fn claim_some(
        &mut self,
        reader: &mut TicketReader,
        slot: OwnedSemaphorePermit,
        stop: &CancellationToken,
    ) -> Result<(), QueueError> {
        let slots = self.free_slots(slot).await;
        let known = self.classes.borrow_and_update().clone();
        let view = self.view(known);
        if view.open.is_empty() && !view.known.is_empty() {
            // No job fits. Release the slots: other namespaces could use them while this loop
            // waits.
            drop(slots);
            let mut changes = view.changes;
            tokio::select! {
                _room = changes.changed() => {}
                _classes = self.classes.changed() => {}
                () = stop.cancelled() => {}
            }
            return Ok(());
        }
        let unblocker = reader.unblocker();
        let (tickets, rooms) = if self.alone {
            let reading = self.read(reader, &view.open, slots.len(), BLOCK);
            self.until_more_fits(&view, unblocker, reading).await?
        } else {
            // Slots that wait here could be used by other namespaces. So the first read does not
            // block; if it finds nothing, the slots are released and only the reader waits.
            reader.mark(&view.open).await?;
            let found = self
                .read(reader, &view.open, slots.len(), Duration::ZERO)
                .await?;
            if found.0.is_empty() {
                drop(slots);
                let watching = reader.watch(BLOCK);
                return self.until_more_fits(&view, unblocker, watching).await;
            }
            found
        };
        if tickets.is_empty() {
            return Ok(());
        }
        let bindings = self.bind(&tickets).await?;
        for ((binding, room), slot) in bindings.into_iter().zip(rooms).zip(slots) {
            let Binding::Bound(bound) = binding else {
                continue;
            };
            let attempts = Arc::clone(&self.attempts);
            self.running.spawn(async move {
                attempts.run(*bound, Slot::new(slot, room)).await;
            });
        }
        Ok(())
    }

    /// Determines which of these classes have jobs that fit now. The class with a reservation comes
    /// first; the order of the others rotates with each call.
    fn view(&mut self, known: Vec<Class>) -> View {
        let changes = self.room.changes();
        let mut open = self.open(&known);
        if !open.is_empty() {
            let first = self.turn % open.len();
            open.rotate_left(first);
        }
        self.turn = self.turn.wrapping_add(1);
        if let Some(kept) = self.room.kept_for(&self.namespace) {
            open.sort_by_key(|class| *class != kept);
        }
        View {
            known,
            open,
            changes,
        }
    }

    fn open(&self, known: &[Class]) -> Vec<Class> {
        let fits = |class: &&Class| self.room.fits(&self.namespace, class) > 0;
        known.iter().filter(fits).cloned().collect()
    }

    /// Reads at most `most` tickets of these classes and reserves capacity for their jobs. Waits at
    /// most `block` for the first ticket.
    async fn read(
        &self,
        reader: &mut TicketReader,
        open: &[Class],
        most: usize,
        block: Duration,
    ) -> Result<(Vec<Ticket>, Vec<Hold>), QueueError> {
        let fits = |class| self.room.fits(&self.namespace, class);
        let alike = open.windows(2).all(|two| match two {
            [one, other] => one.size() == other.size(),
            _ => true,
        });
        if alike {
            let most = open.iter().map(fits).min().unwrap_or(most).min(most);
            let tickets = reader.some(open, most, block).await?;
            return self.with_room(tickets).await;
        }
        let (mut tickets, mut rooms) = (Vec::new(), Vec::new());
        for class in open {
            let found = reader.look(class, fits(class).min(most - tickets.len()));
            let (mut more, mut their_rooms) = self.with_room(found.await?).await?;
            tickets.append(&mut more);
            rooms.append(&mut their_rooms);
        }
        if tickets.is_empty() && !block.is_zero() {
            let found = reader.wait(open, block).await?;
            return self.with_room(found.into_iter().collect()).await;
        }
        Ok((tickets, rooms))
    }

    /// Reserves capacity for the job of each ticket. Returns a ticket to the queue if other jobs
    /// have taken its capacity in the meantime.
    async fn with_room(
        &self,
        tickets: Vec<Ticket>,
    ) -> Result<(Vec<Ticket>, Vec<Hold>), QueueError> {
        let (mut kept, mut rooms, mut surplus) = (Vec::new(), Vec::new(), Vec::new());
        for ticket in tickets {
            match self.room.take(&self.namespace, &ticket.class) {
                Some(room) => {
                    kept.push(ticket);
                    rooms.push(room);
                }
                None => surplus.push(ticket),
            }
        }
        if !surplus.is_empty() {
            let queue = &self.attempts.queue;
            queue.return_tickets(&surplus, &self.worker).await?;
        }
        Ok((kept, rooms))
    }

    /// Waits for `reading`. Ends it through its unblocker when jobs of another class fit that did
    /// not fit before.
    async fn until_more_fits<T>(
        &self,
        view: &View,
        unblocker: Unblocker,
        reading: impl Future<Output = Result<T, QueueError>>,
    ) -> Result<T, QueueError> {
        let mut reading = pin!(reading);
        let mut changes = view.changes.clone();
        while view.open.len() < view.known.len() {
            tokio::select! {
                read = &mut reading => return read,
                _room = changes.changed() => {}
            }
            let open = self.open(&view.known);
            if open.iter().any(|class| !view.open.contains(class)) {
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
