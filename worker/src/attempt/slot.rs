//! The slot that an attempt was claimed with, together with the capacity of its job.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sandhog_config::WorkerSettings;
use sandhog_core::units::{ByteCount, CpuMillis};
use tokio::sync::OwnedSemaphorePermit;

use super::occupancy::OccupancyGuard;
use crate::capacity::Reservation;

/// One of the worker's slots, held until the attempt is settled or another bound replaces it. Cheap
/// to clone; all clones are the same slot.
#[derive(Debug, Clone)]
pub struct Slot(Arc<Mutex<SlotState>>);

/// The parts of a slot; each is returned when it is dropped.
#[derive(Debug)]
struct SlotState {
    /// Declared before the permit so that it is dropped first: the next holder of the slot then
    /// finds the capacity free.
    reservation: Option<Reservation>,
    permit: Option<OwnedSemaphorePermit>,
    /// The occupancy of an attempt that released its slot early, kept until the attempt is settled.
    occupancy: Option<OccupancyGuard>,
}

impl Slot {
    /// Creates a slot from its permit and the capacity of its job.
    #[must_use]
    pub(crate) fn new(permit: OwnedSemaphorePermit, reservation: Reservation) -> Self {
        let state = SlotState {
            reservation: Some(reservation),
            permit: Some(permit),
            occupancy: None,
        };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Frees the slot and its job's capacity for another job. Only for an attempt that just waits
    /// from now on, and whose number is bounded elsewhere.
    pub fn release(&self, occupancy: OccupancyGuard) {
        let mut state = self.state();
        state.occupancy = Some(occupancy);
        state.reservation = None;
        state.permit = None;
    }

    /// Replaces the reserved capacity by the job's actual limits.
    pub fn resize(&self, memory: ByteCount, cpu: CpuMillis) {
        if let Some(reservation) = &mut self.state().reservation {
            reservation.resize(memory, cpu);
        }
    }

    /// Returns whether the slot is still held, so that the attempt's settlement may claim the next
    /// job for it.
    pub(super) fn is_held(&self) -> bool {
        self.state().permit.is_some()
    }

    /// Takes the capacity of a job that has ended.
    pub(super) fn take_reservation(&self) -> Option<Reservation> {
        self.state().reservation.take()
    }

    /// Stores the capacity of the slot's next job.
    pub(super) fn put_reservation(&self, reservation: Reservation) {
        self.state().reservation = Some(reservation);
    }

    /// Ends the occupancy of a settled attempt that had released its slot early.
    pub(super) fn end_occupancy(&self) {
        self.state().occupancy = None;
    }

    fn state(&self) -> MutexGuard<'_, SlotState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the number of jobs that these settings allow at once.
pub(crate) fn slot_count(settings: &WorkerSettings) -> usize {
    match settings.slots {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        set => usize::try_from(set).unwrap_or(usize::MAX),
    }
}
