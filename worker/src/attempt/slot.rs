//! The slot an attempt was claimed with, and its job's part of the worker's room.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sandhog_common::units::{ByteCount, CpuMillis};
use tokio::sync::OwnedSemaphorePermit;

use super::executor::Place;
use crate::room::Hold;

/// One of the worker's slots, held until the attempt is settled or something better bounds it. Cheap to clone; all
/// clones are the same slot.
#[derive(Debug, Clone)]
pub struct Slot(Arc<Mutex<Held>>);

#[derive(Debug)]
struct Held {
    /// Before the permit, so that whoever gets the slot finds the room.
    room: Option<Hold>,
    permit: Option<OwnedSemaphorePermit>,
    /// The place of an attempt that gave its slot up, kept until it is settled.
    place: Option<Place>,
}

impl Slot {
    /// The slot that this permit stands for, with the room of its job.
    #[must_use]
    pub(crate) fn new(permit: OwnedSemaphorePermit, room: Hold) -> Self {
        let held = Held {
            room: Some(room),
            permit: Some(permit),
            place: None,
        };
        Self(Arc::new(Mutex::new(held)))
    }

    /// Frees the slot and its job's room for another job, for an attempt that only waits from now on and that something else bounds.
    pub fn release(&self, place: Place) {
        let mut held = self.held();
        held.place = Some(place);
        held.room = None;
        held.permit = None;
    }

    /// The job's caps turned out to be these, which is what it takes of the worker's room.
    pub fn correct(&self, memory: ByteCount, cpu: CpuMillis) {
        if let Some(room) = &mut self.held().room {
            room.correct(memory, cpu);
        }
    }

    /// Whether it was not given up: then the attempt's settlement may bring the next job for it.
    pub(super) fn is_held(&self) -> bool {
        self.held().permit.is_some()
    }

    /// Takes the room of a job that is over.
    pub(super) fn take_room(&self) -> Option<Hold> {
        self.held().room.take()
    }

    /// Gives the slot the room of its next job.
    pub(super) fn give_room(&self, room: Hold) {
        self.held().room = Some(room);
    }

    /// Leaves the place of an attempt that is settled and had given its slot up.
    pub(super) fn leave(&self) {
        self.held().place = None;
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
