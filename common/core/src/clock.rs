//! Wall-clock time, owned in one place so that tests can set it.
//!
//! The queue's own decisions use Redis `TIME`; this clock only timestamps the data that a process
//! reports about itself. For durations, use `std::time::Instant`.

use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::units::UnixMillis;

/// Source of the time of day.
pub trait Clock: Debug + Send + Sync {
    /// Returns the milliseconds since the Unix epoch.
    fn now(&self) -> UnixMillis;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one owner of wall-clock time"
    )]
    fn now(&self) -> UnixMillis {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// A clock that changes only when it is set. For tests.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// Sets the time that [`Clock::now`] returns.
    pub fn set(&self, now: UnixMillis) {
        self.0.store(now.0, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(self.0.load(Ordering::Relaxed))
    }
}
