//! From a ticket to a running attempt, never more of them than there are slots.
//!
//! Tickets are read only with as many free slots in hand, and only of classes whose jobs there is room for: nothing is
//! prefetched, so a worker never sits on work that another could do.

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
    /// In which namespace.
    pub(crate) namespace: Namespace,
    /// Free slots.
    pub(crate) slots: Arc<Semaphore>,
    /// The memory and CPU there is for jobs.
    pub(crate) room: Room,
    /// Whether no other namespace wants the slots.
    pub(crate) alone: bool,
    /// The classes this worker serves, as they become known.
    pub(crate) classes: watch::Receiver<Vec<Class>>,
    /// Running attempts.
    pub(crate) running: TaskTracker,
    /// Which class is looked at first.
    pub(crate) turn: usize,
    /// Whether no slot is free.
    pub(crate) full: watch::Sender<bool>,
}

/// What fits, as it was seen at one moment.
struct View {
    known: Vec<Class>,
    open: Vec<Class>,
    /// Tells when that may have changed.
    changes: watch::Receiver<()>,
}

impl<E: Executor> Claim<E> {
    /// Claims until `stop`; the reader is unblocked by then.
    ///
    /// # Cancel safety
    /// Not cancel safe: a ticket in hand would lie until its lease lapses. It is spawned, never raced.
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

    /// The next free slot; says so while there is none.
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
            // Nothing fits. Slots that wait here would be missing in other namespaces.
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
            // Slots that wait here are missing elsewhere: they go back, and only the reader waits.
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

    /// Which of these classes has jobs that fit now; the one for which room is kept first, then another each time.
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

    /// Tickets of these classes with the room of their jobs, at most `most`, waiting at most `block` for the first.
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

    /// Takes the room of these tickets' jobs. Those for which there is none any more, because what ended was followed
    /// by others meanwhile, are put back.
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

    /// Waits for `reading`, and ends it by its unblocker when other classes fit than before.
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
                // The reading goes on meanwhile: it is what ends.
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
