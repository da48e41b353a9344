//! The leases that this worker holds, and the heartbeat that renews them.
//!
//! The pending list in Redis is the only store of leases; the table here lists which ones to renew.
//! If Redis reports a lease as lost, its attempt ends at once, because another worker runs that job
//! now.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sandhog_core::class::Class;
use sandhog_core::id::{JobId, Token, WorkerId};
use sandhog_queue::{HeartbeatReply, Lease, Queue};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::backoff::jittered;
use crate::health::RedisLiveness;

/// Random factors of the heartbeat's period, so that workers that started together do not send
/// their heartbeats together.
const HEARTBEAT_JITTER: RangeInclusive<f64> = 0.9..=1.0;

/// Reason for which an attempt should stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interrupt {
    /// A client cancelled the job.
    Cancelled,
    /// The lease went to another worker: publish nothing more about this job.
    LeaseLost,
    /// This worker is stopping: give the job back.
    Draining,
}

/// Receiver of the interrupts of one attempt. The first interrupt is kept; later ones have no
/// effect.
#[derive(Debug, Clone)]
pub struct InterruptReceiver {
    why: watch::Receiver<Option<Interrupt>>,
    token: CancellationToken,
}

impl InterruptReceiver {
    /// Returns the token that is cancelled when the attempt should stop. The sandbox uses it.
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Returns the reason for which the attempt should stop, if there is one.
    #[must_use]
    pub fn why(&self) -> Option<Interrupt> {
        *self.why.borrow()
    }
}

/// One lease of the table.
#[derive(Debug)]
struct LeaseEntry {
    lease: Lease,
    why: watch::Sender<Option<Interrupt>>,
    token: CancellationToken,
}

impl LeaseEntry {
    fn interrupt(&self, interrupt: Interrupt) {
        self.why.send_if_modified(|why| {
            let first = why.is_none();
            if first {
                *why = Some(interrupt);
            }
            first
        });
        self.token.cancel();
    }
}

/// The leases that this worker holds in one namespace.
#[derive(Debug, Clone, Default)]
pub struct Leases(Arc<Mutex<HashMap<Key, LeaseEntry>>>);

/// A token is unique only among the tickets of its class.
type Key = (Class, Token);

fn key(lease: &Lease) -> Key {
    (lease.class.clone(), lease.token.clone())
}

impl Leases {
    /// Adds a lease to the heartbeat until the returned value is dropped.
    #[must_use]
    pub fn hold(&self, lease: Lease) -> LeaseGuard {
        let (why, receiver) = watch::channel(None);
        let token = CancellationToken::new();
        let held = LeaseGuard {
            leases: self.clone(),
            key: key(&lease),
            interrupted: InterruptReceiver {
                why: receiver,
                token: token.clone(),
            },
        };
        self.table(|table| table.insert(key(&lease), LeaseEntry { lease, why, token }));
        held
    }

    /// Interrupts the attempts at job `id` that this worker runs.
    pub fn cancel(&self, id: &JobId) {
        self.table(|table| {
            table
                .values()
                .filter(|held| held.lease.id == *id)
                .for_each(|held| held.interrupt(Interrupt::Cancelled));
        });
    }

    /// Interrupts every attempt.
    pub fn interrupt_all(&self, interrupt: Interrupt) {
        self.table(|table| table.values().for_each(|held| held.interrupt(interrupt)));
    }

    /// Returns the number of held leases.
    #[must_use]
    pub fn count(&self) -> usize {
        self.table(|table| table.len())
    }

    fn all(&self) -> Vec<Lease> {
        self.table(|table| table.values().map(|held| held.lease.clone()).collect())
    }

    fn apply_reply(&self, lease: &Lease, reply: HeartbeatReply) {
        let interrupt = match reply {
            HeartbeatReply::Held | HeartbeatReply::Settled => return,
            HeartbeatReply::Cancel => Interrupt::Cancelled,
            HeartbeatReply::Lost => {
                tracing::warn!(job = %lease.id, token = %lease.token, "lease lost");
                Interrupt::LeaseLost
            }
        };
        self.table(|table| {
            if let Some(held) = table.get(&key(lease)) {
                held.interrupt(interrupt);
            }
        });
    }

    fn table<T>(&self, with: impl FnOnce(&mut HashMap<Key, LeaseEntry>) -> T) -> T {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A lease that the heartbeat renews. Dropping it removes the lease from the heartbeat.
#[derive(Debug)]
pub struct LeaseGuard {
    leases: Leases,
    key: Key,
    interrupted: InterruptReceiver,
}

impl LeaseGuard {
    /// Returns the receiver of this attempt's interrupts.
    #[must_use]
    pub fn interrupted(&self) -> &InterruptReceiver {
        &self.interrupted
    }
}

impl Drop for LeaseGuard {
    fn drop(&mut self) {
        self.leases.table(|table| table.remove(&self.key));
    }
}

/// Renews every lease once in each third of `lease`, until `stop` is cancelled. While Redis is
/// unreachable, it keeps trying: the leases expire by themselves, and the first reply afterwards
/// tells which ones are lost.
pub(crate) async fn run_heartbeat(
    queue: Queue,
    worker: WorkerId,
    leases: Leases,
    lease: Duration,
    liveness: RedisLiveness,
    stop: CancellationToken,
) {
    let period = lease / 3;
    let mut reachable = true;
    while stop
        .run_until_cancelled(tokio::time::sleep(jittered(period, HEARTBEAT_JITTER)))
        .await
        .is_some()
    {
        let held = leases.all();
        match queue.heartbeat(&worker, &held).await {
            Ok(replies) => {
                liveness.record();
                if !reachable {
                    tracing::info!("redis answers again");
                }
                reachable = true;
                held.iter()
                    .zip(replies)
                    .for_each(|(lease, reply)| leases.apply_reply(lease, reply));
            }
            Err(error) => {
                if reachable {
                    tracing::warn!(error = &error as &dyn std::error::Error, "heartbeat failed");
                }
                reachable = false;
            }
        }
    }
}
