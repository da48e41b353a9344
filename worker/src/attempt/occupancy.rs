//! Occupancy of a slot by one attempt, which may last longer than the attempt's result.

use tokio_util::sync::{CancellationToken, DropGuard};

/// Guard that keeps a slot occupied. No other attempt starts in the slot until it is dropped.
#[derive(Debug)]
pub struct OccupancyGuard {
    _guard: DropGuard,
}

/// Signal that tells when the guard of a slot is dropped.
#[derive(Debug, Clone)]
pub struct Occupancy(CancellationToken);

impl OccupancyGuard {
    /// Creates a guard and the signal that tells when it is dropped.
    pub(super) fn new() -> (Self, Occupancy) {
        let dropped = CancellationToken::new();
        let guard = dropped.clone().drop_guard();
        (Self { _guard: guard }, Occupancy(dropped))
    }
}

impl Occupancy {
    /// Returns whether nothing of the attempt is left.
    pub(super) fn has_ended(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Waits until nothing of the attempt is left.
    pub(super) async fn wait_for_end(&self) {
        self.0.cancelled().await;
    }
}
