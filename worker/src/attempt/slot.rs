//! The slot that an attempt was claimed with, together with its job's share of the worker's
//! capacity.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sandhog_common::units::{ByteCount, CpuMillis};
use tokio::sync::OwnedSemaphorePermit;

use super::executor::Place;
use crate::room::Hold;

/// One of the worker's slots, held until the attempt is settled or another bound replaces it. Cheap
/// to clone; all clones are the same slot.
#[derive(Debug, Clone)]
pub struct Slot(Arc<Mutex<Held>>);

#[derive(Debug)]
struct Held {
    /// Declared before the permit so that it is dropped first: the next holder of the slot then
    /// finds the capacity free.
    room: Option<Hold>,
    permit: Option<OwnedSemaphorePermit>,
    /// The place of an attempt that released its slot early, kept until the attempt is settled.
    place: Option<Place>,
}

impl Slot {
    /// Creates a slot from its permit and the capacity of its job.
    #[must_use]
    pub(crate) fn new(permit: OwnedSemaphorePermit, room: Hold) -> Self {
        let held = Held {
            room: Some(room),
            permit: Some(permit),
            place: None,
        };
        Self(Arc::new(Mutex::new(held)))
    }

    /// Frees the slot and its job's capacity for another job. For an attempt that only waits from
    /// now on and whose number is bounded elsewhere.
    pub fn release(&self, place: Place) {
        let mut held = self.held();
        held.place = Some(place);
        held.room = None;
        held.permit = None;
    }

    /// Replaces the reserved capacity by the job's actual limits.
    pub fn correct(&self, memory: ByteCount, cpu: CpuMillis) {
        if let Some(room) = &mut self.held().room {
            room.correct(memory, cpu);
        }
    }

    /// Returns whether the slot is still held, so that the attempt's settlement may claim the next
    /// job for it.
    pub(super) fn is_held(&self) -> bool {
        self.held().permit.is_some()
    }

    /// Takes the capacity of a job that has ended.
    pub(super) fn take_room(&self) -> Option<Hold> {
        self.held().room.take()
    }

    /// Stores the capacity of the slot's next job.
    pub(super) fn give_room(&self, room: Hold) {
        self.held().room = Some(room);
    }

    /// Drops the place of a settled attempt that had released its slot early.
    pub(super) fn leave(&self) {
        self.held().place = None;
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
