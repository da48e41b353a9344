//! Permits that limit the number of loaded model servers. A task that waits for a permit makes idle
//! servers release theirs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// The load permits of one worker.
#[derive(Debug)]
pub(super) struct LoadPermits {
    free: Arc<Semaphore>,
    /// Number of tasks that wait for a permit.
    waiters: AtomicUsize,
    new_waiter: Notify,
}

/// Permit for one server.
#[derive(Debug)]
pub(super) struct LoadPermit {
    permits: Arc<LoadPermits>,
    _permit: OwnedSemaphorePermit,
}

impl LoadPermits {
    pub(super) fn new(number: usize) -> Arc<Self> {
        Arc::new(Self {
            free: Arc::new(Semaphore::new(number.min(Semaphore::MAX_PERMITS))),
            waiters: AtomicUsize::new(0),
            new_waiter: Notify::new(),
        })
    }

    /// Takes a permit: a free one, or one that an idle server releases. Waits while no server is
    /// idle.
    ///
    /// # Cancel safety
    /// Safe: no permit is taken in that case.
    pub(super) async fn take(self: &Arc<Self>) -> LoadPermit {
        let waiter = PermitWaiter::new(self);
        let permit = Arc::clone(&self.free)
            .acquire_owned()
            .await
            .expect("the semaphore of the permits is never closed");
        drop(waiter);
        LoadPermit {
            permits: Arc::clone(self),
            _permit: permit,
        }
    }
}

impl LoadPermit {
    /// Waits until another task needs a permit and none is free. Every idle server that waits here
    /// may stop then: stopping one too many costs one extra load, stopping one too few would block
    /// a job. Call it only for a server that is idle and may be stopped.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn wait_for_demand(&self) {
        loop {
            let new_waiter = self.permits.new_waiter.notified();
            let waiters = self.permits.waiters.load(Ordering::Acquire);
            if waiters > self.permits.free.available_permits() {
                return;
            }
            new_waiter.await;
        }
    }
}

/// Registers a task that waits for a permit.
struct PermitWaiter<'a>(&'a LoadPermits);

impl<'a> PermitWaiter<'a> {
    fn new(permits: &'a LoadPermits) -> Self {
        permits.waiters.fetch_add(1, Ordering::AcqRel);
        permits.new_waiter.notify_waiters();
        Self(permits)
    }
}

impl Drop for PermitWaiter<'_> {
    fn drop(&mut self) {
        self.0.waiters.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn an_idle_server_goes_when_its_permit_is_wanted() {
        let permits = LoadPermits::new(1);
        let first = permits.take().await;
        let mut asked = Box::pin(first.wait_for_demand());
        assert!(
            asked.as_mut().now_or_never().is_none(),
            "no task waits for it"
        );
        let mut second = Box::pin(permits.take());
        assert!(
            second.as_mut().now_or_never().is_none(),
            "there is one permit"
        );
        asked.await;
        drop(first);
        let second = second.await;
        assert!(
            second.wait_for_demand().now_or_never().is_none(),
            "satisfied"
        );
    }
}
