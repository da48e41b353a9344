//! Reads the state of the queue from Redis and waits for it to change.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use redis::Value;
use sandhog_core::class::Class;
use sandhog_core::id::JobId;
use sandhog_queue::keys::{Keys, WORKER_GROUP};

use super::retrying_connection::RetryingConnection;
use crate::namespace::WAIT_TIMEOUT;

/// Time that the queue may take to become idle after the last result. Without its fence it never
/// does.
const QUIET_TIMEOUT: Duration = Duration::from_secs(60);

/// Number of keys in one pipeline.
pub(super) const PIPELINE_KEYS: usize = 500;

/// Returns the number of tickets that each worker holds.
pub(super) fn pending(connection: &mut RetryingConnection, keys: &Keys) -> HashMap<String, usize> {
    let tickets = keys.tickets(&Class::default());
    let exists: u64 = connection.ask(&["EXISTS", &tickets]);
    if exists == 0 {
        return HashMap::new();
    }
    type Summary = (Value, Value, Value, Option<Vec<(String, String)>>);
    let (_, _, _, consumers): Summary = connection.ask(&["XPENDING", &tickets, WORKER_GROUP]);
    consumers
        .unwrap_or_default()
        .into_iter()
        .map(|(name, count)| (name, count.parse().unwrap_or(0)))
        .collect()
}

/// Waits until every job has a result or the timeout is over; missing results are counted later.
/// Calls `meanwhile` between the checks.
pub(super) fn wait_for_results(
    connection: &mut RetryingConnection,
    keys: &Keys,
    ids: &[JobId],
    mut meanwhile: impl FnMut(),
) {
    let deadline = Instant::now() + WAIT_TIMEOUT;
    let mut missing: Vec<&JobId> = ids.iter().collect();
    while !missing.is_empty() && Instant::now() < deadline {
        let mut still = Vec::new();
        for some in missing.chunks(PIPELINE_KEYS) {
            let mut pipeline = redis::pipe();
            for id in some {
                pipeline.cmd("EXISTS").arg(keys.result(id));
            }
            let there: Vec<bool> = connection.ask_all(&pipeline);
            still.extend(
                some.iter()
                    .zip(there)
                    .filter(|(_, there)| !there)
                    .map(|(id, _)| *id),
            );
        }
        missing = still;
        meanwhile();
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until the intake, the tickets, the delayed set and the leases are empty, or a minute is
/// over. Remaining entries are counted later.
pub(super) fn wait_until_quiet(
    connection: &mut RetryingConnection,
    keys: &Keys,
    mut meanwhile: impl FnMut(),
) {
    let deadline = Instant::now() + QUIET_TIMEOUT;
    let prefix = keys.prefix();
    while Instant::now() < deadline {
        let mut pipeline = redis::pipe();
        pipeline.cmd("XLEN").arg(keys.jobs());
        pipeline.cmd("XLEN").arg(keys.tickets(&Class::default()));
        pipeline.cmd("ZCARD").arg(keys.delayed());
        pipeline.cmd("EXISTS").arg(format!("{prefix}bound:cpu"));
        pipeline.cmd("EXISTS").arg(format!("{prefix}fair:cpu"));
        let left: Vec<u64> = connection.ask_all(&pipeline);
        if left.iter().all(|&count| count == 0) {
            return;
        }
        meanwhile();
        std::thread::sleep(Duration::from_millis(50));
    }
}
