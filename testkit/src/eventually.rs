//! Waits for a condition that no event announces.

use std::time::{Duration, Instant};

/// Pause between two checks.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// Repeats `check` until it returns a value, and returns the value.
///
/// # Panics
/// Panics with the last error of `check` if it returns no value within `timeout`.
pub fn eventually<T>(timeout: Duration, mut check: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + timeout;
    loop {
        match check() {
            Ok(value) => return value,
            Err(error) => assert!(Instant::now() < deadline, "after {timeout:?}: {error}"),
        }
        std::thread::sleep(CHECK_INTERVAL);
    }
}

/// Repeats `check` as [`eventually`] does, for async tests.
///
/// # Panics
/// Panics with the last error of `check` if it returns no value within `timeout`.
pub async fn eventually_async<T>(
    timeout: Duration,
    mut check: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let deadline = Instant::now() + timeout;
    loop {
        match check().await {
            Ok(value) => return value,
            Err(error) => assert!(Instant::now() < deadline, "after {timeout:?}: {error}"),
        }
        tokio::time::sleep(CHECK_INTERVAL).await;
    }
}
