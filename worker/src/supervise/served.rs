//! One namespace that a worker serves: its connections, its leases and its loops.
//!
//! Namespaces share the worker's slots and containers and nothing else. Each may be on another node
//! of a cluster, and one that does not answer does not delay the others.

use std::collections::BTreeSet;
use std::sync::Arc;

use sandhog_common::config::Settings;
use sandhog_common::id::{Namespace, WorkerId};
use sandhog_common::queue::{Queue, QueueError, Unblocker};
use sandhog_common::units::UnixMillis;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::lanes::{Lane, Lanes};
use super::upkeep::{self, Duty, News, Upkeep};
use crate::admit::{self, Door};
use crate::attempt::{Attempts, Claims, Executor, Settler};
use crate::claim::Claim;
use crate::gpu::Gpus;
use crate::http::Health;
use crate::lease::{self, Interrupt, Leases};
use crate::metrics::ClassLabels;
use crate::models::Models;
use crate::pool::Pool;
use crate::room::Room;
use crate::sandbox::Engine;
use crate::schedule;
use crate::trace::Tracing;

/// Handles that all namespaces of one worker share.
#[derive(Debug)]
pub(super) struct Shared<E> {
    pub(super) worker: WorkerId,
    pub(super) executor: Arc<E>,
    pub(super) slots: Arc<Semaphore>,
    pub(super) total_slots: usize,
    pub(super) room: Room,
    pub(super) running: TaskTracker,
    pub(super) sandboxes: Option<(Engine, Pool)>,
    pub(super) models: Option<Models>,
    /// `None` for a worker without containers, for which `gpu` is a tag like any other.
    pub(super) gpus: Option<Gpus>,
    pub(super) tracing: Tracing,
    pub(super) health: Arc<Health>,
    pub(super) started_at: UnixMillis,
    /// Stops claiming and admitting.
    pub(super) claiming: CancellationToken,
    /// Stops everything else.
    pub(super) serving: CancellationToken,
}

/// A namespace that is connected but not served yet.
#[derive(Debug)]
pub(super) struct Connected {
    pub(super) namespace: Namespace,
    pub(super) queue: Queue,
}

/// A namespace that is served.
#[derive(Debug)]
pub(super) struct Served {
    queue: Queue,
    leases: Leases,
    claimers: Vec<JoinHandle<()>>,
    servers: Vec<JoinHandle<()>>,
    readers: Vec<Unblocker>,
}

impl Connected {
    /// Connects and checks that Redis is configured so that it does not lose jobs.
    pub(super) async fn to(settings: &Settings, namespace: Namespace) -> Result<Self, QueueError> {
        let queue = Queue::connect(&settings.redis, &namespace).await?;
        queue.check().await?;
        Ok(Self { namespace, queue })
    }

    /// Starts every loop of the worker's namespace number `n`. The first namespace also maintains
    /// the containers. `alone` is set if there is no other namespace.
    pub(super) async fn serve<E: Executor>(
        self,
        settings: &Settings,
        shared: &Shared<E>,
        n: usize,
        alone: bool,
    ) -> Result<Served, QueueError> {
        let Self { namespace, queue } = self;
        let worker = &settings.worker;
        let lease = worker.lease_ms.duration();
        let leases = Leases::default();
        let intake =
            (queue.intake_reader(&shared.worker).await?).with_max_payload(worker.max_payload);
        let tickets = queue.ticket_reader(&shared.worker).await?;
        let control = queue.control_reader().await?;
        let (classes, known_classes) = watch::channel(Vec::new());
        let mut readers = vec![intake.unblocker(), tickets.unblocker(), control.unblocker()];
        let mut lanes = vec![Lane {
            for_gpus: false,
            classes,
            reader: tickets.unblocker(),
        }];
        let mut for_gpus = None;
        if let Some(gpus) = shared.gpus.as_ref().filter(|gpus| gpus.any()) {
            let tickets = queue.ticket_reader(&shared.worker).await?;
            let (classes, known) = watch::channel(Vec::new());
            readers.push(tickets.unblocker());
            lanes.push(Lane {
                for_gpus: true,
                classes,
                reader: tickets.unblocker(),
            });
            for_gpus = Some((tickets, known, gpus.places()));
        }
        let pulse = shared.health.pulse(n);
        let learn = Arc::new(Notify::new());
        let round = Arc::new(Notify::new());
        let news = News {
            leases: leases.clone(),
            tags: shared.gpus.is_none().then(|| worker.tags.clone()),
            learn: Arc::clone(&learn),
        };

        let lanes = Lanes::new(worker.tags.clone(), shared.gpus.clone(), lanes);
        let plain_tags = lanes.without_gpus();
        let mut upkeep = Upkeep {
            namespace: namespace.clone(),
            queue: queue.clone(),
            worker: shared.worker.clone(),
            settings: worker.clone(),
            total_slots: shared.total_slots,
            room: shared.room.clone(),
            alone,
            learn: Arc::clone(&learn),
            running: shared.running.clone(),
            lanes,
            sandboxes: shared.sandboxes.clone(),
            models: shared.models.clone(),
            first: n == 0,
            warm: settings.pool.warm.clone(),
            health: Arc::clone(&shared.health),
            pulse: pulse.clone(),
            started_at: shared.started_at,
            leases: leases.clone(),
            identity: None,
            lost: None,
            unroutable: BTreeSet::new(),
            labels: ClassLabels::default(),
            round: Arc::clone(&round),
            duty: Duty::default(),
        };
        upkeep.first().await?;

        let (usual_full, full) = watch::channel(false);
        let claim = |classes, slots, settler, full| Claim {
            full,
            attempts: Arc::new(Attempts {
                tracing: shared.tracing.of(&namespace),
                namespace: namespace.clone(),
                queue: queue.clone(),
                settler,
                executor: Arc::clone(&shared.executor),
                leases: leases.clone(),
                max_payload: worker.max_payload,
                max_lost: worker.max_lost,
            }),
            worker: shared.worker.clone(),
            namespace: namespace.clone(),
            room: shared.room.clone(),
            turn: 0,
            slots,
            alone,
            classes,
            running: shared.running.clone(),
        };
        let own = Claims {
            namespace: namespace.clone(),
            classes: known_classes.clone(),
            room: shared.room.clone(),
            stop: shared.claiming.clone(),
        };
        let settler = Settler::start(queue.clone(), alone.then_some(own));
        let usual = claim(
            known_classes.clone(),
            Arc::clone(&shared.slots),
            settler,
            usual_full,
        );
        let door = Door {
            queue: queue.clone(),
            executor: Arc::clone(&shared.executor),
            max_payload: worker.max_payload,
            tags: plain_tags,
            classes: known_classes,
            learn,
            full,
            refusals: admit::Refusals::default(),
        };
        let mut claimers = vec![
            tokio::spawn(admit::admit(door, intake, shared.claiming.clone())),
            tokio::spawn(usual.run(tickets, shared.claiming.clone())),
            tokio::spawn(schedule::keep(
                queue.clone(),
                round,
                shared.claiming.clone(),
            )),
        ];
        if let Some((tickets, classes, places)) = for_gpus {
            // A settlement does not claim the next job here: each claim must check again that a GPU
            // is left.
            let settler = Settler::start(queue.clone(), None);
            let claim = claim(classes, places, settler, watch::Sender::new(false));
            claimers.push(tokio::spawn(claim.run(tickets, shared.claiming.clone())));
        }
        let servers = vec![
            tokio::spawn(upkeep.run(shared.serving.clone())),
            tokio::spawn(upkeep::hear(control, news, shared.serving.clone())),
            tokio::spawn(lease::beat(
                queue.clone(),
                shared.worker.clone(),
                leases.clone(),
                lease,
                pulse.clone(),
                shared.serving.clone(),
            )),
        ];
        pulse.beat();
        Ok(Served {
            queue,
            leases,
            claimers,
            servers,
            readers,
        })
    }
}

impl Served {
    /// Waits until claiming has ended. The caller has already cancelled its token.
    pub(super) async fn stop_claiming(&mut self) {
        unblock(&self.readers).await;
        finish(std::mem::take(&mut self.claimers)).await;
    }

    /// Interrupts every attempt because the worker is stopping.
    pub(super) fn interrupt_all(&self) {
        self.leases.interrupt_all(Interrupt::Draining);
    }

    /// Waits until everything else has ended and removes the worker's record. The caller has
    /// already cancelled the token.
    pub(super) async fn stop(self, worker: &WorkerId) {
        unblock(&self.readers).await;
        finish(self.servers).await;
        if let Err(error) = self.queue.retire(worker).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "worker record not removed"
            );
        }
    }
}

/// Unblocks the readers. A reader that cannot be unblocked ends by its own timeout.
async fn unblock(readers: &[Unblocker]) {
    for reader in readers {
        if let Err(error) = reader.unblock().await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "reader not unblocked"
            );
        }
    }
}

async fn finish(tasks: Vec<JoinHandle<()>>) {
    for task in tasks {
        if let Err(error) = task.await {
            tracing::error!(%error, "a worker task failed");
        }
    }
}
