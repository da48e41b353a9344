//! Permits that limit the number of loaded model servers. A task that waits for a permit makes idle
//! servers release theirs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// The load permits of one worker.
#[derive(Debug)]
pub(super) struct Seats {
    free: Arc<Semaphore>,
    wanted: AtomicUsize,
    asked: Notify,
}

/// Permit for one server.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Arc<Seats>,
    _permit: OwnedSemaphorePermit,
}

impl Seats {
    pub(super) fn new(number: usize) -> Arc<Self> {
        Arc::new(Self {
            free: Arc::new(Semaphore::new(number.min(Semaphore::MAX_PERMITS))),
            wanted: AtomicUsize::new(0),
            asked: Notify::new(),
        })
    }

    /// Takes a permit: a free one, or one that an idle server releases. Waits while no server is
    /// idle.
    ///
    /// # Cancel safety
    /// Safe: no permit is taken in that case.
    pub(super) async fn take(self: &Arc<Self>) -> Seat {
        let want = Want::new(self);
        let permit = Arc::clone(&self.free)
            .acquire_owned()
            .await
            .expect("the semaphore of the permits is never closed");
        drop(want);
        Seat {
            seats: Arc::clone(self),
            _permit: permit,
        }
    }
}

impl Seat {
    /// Waits until another task needs a permit and none is free. Every idle server that waits here
    /// may stop then: stopping one too many costs one extra load, stopping one too few would block
    /// a job. Call it only for a server that is idle and may be stopped.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn asked_for(&self) {
        loop {
            let asked = self.seats.asked.notified();
            let wanted = self.seats.wanted.load(Ordering::Acquire);
            if wanted > self.seats.free.available_permits() {
                return;
            }
            asked.await;
        }
    }
}

/// Registers a task that waits for a permit.
struct Want<'a>(&'a Seats);

impl<'a> Want<'a> {
    fn new(seats: &'a Seats) -> Self {
        seats.wanted.fetch_add(1, Ordering::AcqRel);
        seats.asked.notify_waiters();
        Self(seats)
    }
}

impl Drop for Want<'_> {
    fn drop(&mut self) {
        self.0.wanted.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn an_idle_server_goes_when_its_seat_is_wanted() {
        let seats = Seats::new(1);
        let first = seats.take().await;
        let mut asked = Box::pin(first.asked_for());
        assert!(asked.as_mut().now_or_never().is_none(), "nobody wants it");
        let mut second = Box::pin(seats.take());
        assert!(
            second.as_mut().now_or_never().is_none(),
            "there is one seat"
        );
        asked.await;
        drop(first);
        let second = second.await;
        assert!(second.asked_for().now_or_never().is_none(), "satisfied");
    }
}
