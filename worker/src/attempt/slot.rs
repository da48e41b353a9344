//! The slot an attempt was claimed with.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedSemaphorePermit;

use super::executor::Place;

/// One of the worker's slots, held until the attempt is settled or something better bounds it. Cheap to clone; all
/// clones are the same slot.
#[derive(Debug, Clone)]
pub struct Slot(Arc<Mutex<Held>>);

#[derive(Debug)]
struct Held {
    permit: Option<OwnedSemaphorePermit>,
    /// The place of an attempt that gave its slot up: kept until it is settled, because the settlement of an attempt
    /// with a free place brings the next job for its slot, and this one has none any more.
    place: Option<Place>,
}

impl Slot {
    /// The slot that this permit stands for.
    #[must_use]
    pub(crate) fn new(permit: OwnedSemaphorePermit) -> Self {
        let held = Held {
            permit: Some(permit),
            place: None,
        };
        Self(Arc::new(Mutex::new(held)))
    }

    /// Frees the slot for another job, for an attempt that only waits from now on and that something else bounds.
    pub fn release(&self, place: Place) {
        let mut held = self.held();
        held.place = Some(place);
        held.permit = None;
    }

    /// Leaves the place of an attempt that is settled and had given its slot up.
    pub(super) fn leave(&self) {
        self.held().place = None;
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
