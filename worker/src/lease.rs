//! The leases this worker holds, and the heartbeat that renews them.
//!
//! Redis' pending list is the only lease store; the table here is just what to renew. A lease that Redis says is lost
//! ends its attempt at once, because somebody else is running that job now.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::Rng;
use sandhog_common::class::Class;
use sandhog_common::id::{JobId, Token, WorkerId};
use sandhog_common::queue::{BeatReply, Lease, Queue};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::http::Pulse;

/// Why an attempt should stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interrupt {
    /// Somebody asked for the job to be cancelled.
    Cancelled,
    /// The lease went to another worker: say nothing more of this job.
    LeaseLost,
    /// This worker is stopping: give the job back.
    Draining,
}

/// One attempt's ear for interrupts. The first one said stands.
#[derive(Debug, Clone)]
pub struct Interrupted {
    why: watch::Receiver<Option<Interrupt>>,
    token: CancellationToken,
}

impl Interrupted {
    /// Ends when the attempt should stop, for the sandbox.
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Why the attempt should stop, if it should.
    #[must_use]
    pub fn why(&self) -> Option<Interrupt> {
        *self.why.borrow()
    }
}

#[derive(Debug)]
struct Held {
    lease: Lease,
    why: watch::Sender<Option<Interrupt>>,
    token: CancellationToken,
}

impl Held {
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

/// The leases this worker holds in one namespace.
#[derive(Debug, Clone, Default)]
pub struct Leases(Arc<Mutex<HashMap<Key, Held>>>);

/// A token is unique among the tickets of its class only.
type Key = (Class, Token);

fn key(lease: &Lease) -> Key {
    (lease.class.clone(), lease.token.clone())
}

impl Leases {
    /// Takes a lease into the heartbeat until the answer is dropped.
    #[must_use]
    pub fn hold(&self, lease: Lease) -> HeldLease {
        let (why, heard) = watch::channel(None);
        let token = CancellationToken::new();
        let held = HeldLease {
            leases: self.clone(),
            key: key(&lease),
            interrupted: Interrupted {
                why: heard,
                token: token.clone(),
            },
        };
        self.table(|table| table.insert(key(&lease), Held { lease, why, token }));
        held
    }

    /// Stops the attempts at `id`, if this worker has one.
    pub fn cancel(&self, id: &JobId) {
        self.table(|table| {
            table
                .values()
                .filter(|held| held.lease.id == *id)
                .for_each(|held| held.interrupt(Interrupt::Cancelled));
        });
    }

    /// Stops every attempt.
    pub fn interrupt_all(&self, interrupt: Interrupt) {
        self.table(|table| table.values().for_each(|held| held.interrupt(interrupt)));
    }

    /// How many leases are held.
    #[must_use]
    pub fn count(&self) -> usize {
        self.table(|table| table.len())
    }

    fn all(&self) -> Vec<Lease> {
        self.table(|table| table.values().map(|held| held.lease.clone()).collect())
    }

    fn heard(&self, lease: &Lease, reply: BeatReply) {
        let interrupt = match reply {
            BeatReply::Held | BeatReply::Settled => return,
            BeatReply::Cancel => Interrupt::Cancelled,
            BeatReply::Lost => {
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

    fn table<T>(&self, with: impl FnOnce(&mut HashMap<Key, Held>) -> T) -> T {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A lease in the heartbeat; dropping it takes it out.
#[derive(Debug)]
pub struct HeldLease {
    leases: Leases,
    key: Key,
    interrupted: Interrupted,
}

impl HeldLease {
    /// This attempt's ear for interrupts.
    #[must_use]
    pub fn interrupted(&self) -> &Interrupted {
        &self.interrupted
    }
}

impl Drop for HeldLease {
    fn drop(&mut self) {
        self.leases.table(|table| table.remove(&self.key));
    }
}

/// Renews every lease each third of `lease`, until `stop`. An unreachable Redis is waited out: the leases lapse by
/// themselves, and the first answer after that says which are lost.
pub(crate) async fn beat(
    queue: Queue,
    worker: WorkerId,
    leases: Leases,
    lease: Duration,
    pulse: Pulse,
    stop: CancellationToken,
) {
    let period = lease / 3;
    let mut reachable = true;
    while stop
        .run_until_cancelled(tokio::time::sleep(jittered(period)))
        .await
        .is_some()
    {
        let held = leases.all();
        match queue.beat(&worker, &held).await {
            Ok(replies) => {
                pulse.beat();
                if !reachable {
                    tracing::info!("redis answers again");
                }
                reachable = true;
                held.iter()
                    .zip(replies)
                    .for_each(|(lease, reply)| leases.heard(lease, reply));
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

/// A tenth less at most, so that workers started together do not beat together.
fn jittered(period: Duration) -> Duration {
    period.mul_f64(rand::rng().random_range(0.9..=1.0))
}
