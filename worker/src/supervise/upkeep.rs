//! What every worker does for the queue beside its own jobs, each turn with jitter so that workers take turns.
//!
//! Promotes delayed jobs, takes back leases of silent workers, learns new classes, says that it lives, and removes
//! what dead workers left with the container engine.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use sandhog_common::config::{Warm, WorkerSettings};
use sandhog_common::id::{Class, Namespace, WorkerId};
use sandhog_common::queue::{
    ControlEvent, ControlReader, ModelFacts, Queue, QueueError, WorkerFacts,
};
use sandhog_common::units::{Millis, UnixMillis};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::lanes::Lanes;
use super::{Patience, jittered};
use crate::http::{Health, Phase, Pulse};
use crate::lease::{Interrupt, Leases};
use crate::models::Models;
use crate::pool::Pool;
use crate::room::Room;
use crate::sandbox::Engine;
use crate::{metrics, name};

/// Between two turns.
const TURN: Duration = Duration::from_millis(500);

/// Between two turns at least, however soon a tenant's rate allows the next job.
const SHORTEST: Duration = Duration::from_millis(20);

/// Every so many turns the worker says that it lives, and reads the whole queue for its metrics.
const ANNOUNCE_EVERY: u32 = 8;

/// How long a reservation holds that is not renewed: a few turns.
const RESERVATION: Millis = Millis(3_000);

/// Every so many turns containers of dead workers are looked for.
const REAP_EVERY: u32 = 60;

/// How long one blocking read of the control stream waits.
const BLOCK: Duration = Duration::from_secs(5);

/// The upkeep of one worker.
#[derive(Debug)]
pub(super) struct Upkeep {
    pub(super) namespace: Namespace,
    pub(super) queue: Queue,
    pub(super) worker: WorkerId,
    pub(super) settings: WorkerSettings,
    /// Images of which unused containers are kept ready.
    pub(super) warm: Vec<Warm>,
    pub(super) total_slots: usize,
    /// The memory and CPU of all namespaces' jobs.
    pub(super) room: Room,
    /// Whether no other namespace has jobs in that room.
    pub(super) alone: bool,
    /// Told when there may be a class that is not known yet.
    pub(super) learn: Arc<Notify>,
    /// The attempts of all of the worker's namespaces.
    pub(super) running: TaskTracker,
    pub(super) lanes: Lanes,
    pub(super) sandboxes: Option<(Engine, Pool)>,
    pub(super) models: Option<Models>,
    /// Whether this namespace looks after the containers.
    pub(super) first: bool,
    pub(super) health: Arc<Health>,
    pub(super) pulse: Pulse,
    pub(super) started_at: UnixMillis,
    /// The leases of this namespace.
    pub(super) leases: Leases,
    /// What tells the namespace from one that was made anew in its place; none before the first look.
    pub(super) identity: Option<Uuid>,
    /// The classes that were unroutable when it last looked.
    pub(super) unroutable: BTreeSet<Class>,
}

impl Upkeep {
    /// What must be done before the first claim. Says that it lives before it looks for what dead workers left.
    pub(super) async fn first(&mut self) -> Result<(), QueueError> {
        self.identity = Some(self.queue.identity().await?);
        metrics::vanished(&self.namespace, 0, 0);
        self.announce().await?;
        self.learn_classes().await?;
        // Every gauge has its value before anybody can ask for it.
        metrics::upkeep(0, 0);
        self.measure();
        self.look_over().await?;
        self.reap().await
    }

    /// Turns until `stop`.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut patience = Patience::new("upkeep");
        let mut turn = 0_u32;
        let mut pause = jittered(TURN);
        while let Some(slept) = stop.run_until_cancelled(self.sleep(pause)).await {
            if let Err(error) = slept {
                patience.wear(&error, &stop).await;
            }
            turn = turn.wrapping_add(1);
            pause = jittered(TURN);
            if self.first {
                metrics::fold();
            }
            match self.turn(turn).await {
                Ok(next_start) => {
                    patience.restore();
                    if let Some(next) = next_start {
                        pause = pause.min(next.duration().max(SHORTEST));
                    }
                }
                Err(error) => patience.wear(&error, &stop).await,
            }
        }
    }

    /// Until the next turn. Learns of a new class as soon as there is one.
    async fn sleep(&mut self, pause: Duration) -> Result<(), QueueError> {
        let end = tokio::time::sleep(pause);
        let mut end = pin!(end);
        let learn = Arc::clone(&self.learn);
        loop {
            tokio::select! {
                () = &mut end => return Ok(()),
                () = learn.notified() => self.learn_classes().await?,
            }
        }
    }

    /// One turn. Answers how soon the next should come, when a tenant's rate holds jobs back until then.
    async fn turn(&mut self, turn: u32) -> Result<Option<Millis>, QueueError> {
        self.notice_loss().await?;
        let report = self
            .queue
            .tick(self.settings.lease_ms, self.settings.max_lost)
            .await?;
        self.pulse.beat();
        metrics::upkeep(report.reaped, report.promoted);
        self.learn_classes().await?;
        self.keep_room().await?;
        if self.first
            && let Some((_engine, pool)) = &self.sandboxes
        {
            let gpus = self.lanes.gpus();
            let failed = gpus.into_iter().filter(|gpu| gpu.failure.is_some());
            let failed: Vec<String> = failed.map(|gpu| gpu.uuid).collect();
            if !failed.is_empty() {
                pool.withdraw(&failed);
            }
            pool.sweep();
            pool.keep_warm(&self.warm).await;
            if let Some(models) = &self.models {
                models.keep_warm().await;
            }
        }
        self.measure();
        if turn.is_multiple_of(ANNOUNCE_EVERY) {
            self.announce().await?;
            self.look_over().await?;
        }
        // Just after Redis was away, workers have not said yet that they live.
        if turn.is_multiple_of(REAP_EVERY) && report.patient == Millis(0) {
            self.reap().await?;
        }
        Ok(report.next_start)
    }

    /// Whether Redis still holds the namespace that this worker's leases are from. One that was emptied, or that is not
    /// the one it was, knows nothing of them: what runs here would be thrown away, so it is stopped, and other workers
    /// hear that this one lives before they take its containers for a dead one's.
    async fn notice_loss(&mut self) -> Result<(), QueueError> {
        let identity = self.queue.identity().await?;
        let known = self.identity.replace(identity);
        if known.is_none_or(|known| known == identity) {
            return Ok(());
        }
        let leases = self.leases.count();
        tracing::warn!(
            namespace = %self.namespace,
            leases,
            "the namespace vanished from redis, and the leases with it"
        );
        metrics::vanished(&self.namespace, 1, leases);
        self.leases.interrupt_all(Interrupt::LeaseLost);
        self.announce().await
    }

    /// Keeps room for a job that has been passed over for long, when there is one and this worker is the one to do it.
    async fn keep_room(&mut self) -> Result<(), QueueError> {
        let served = self.lanes.short_of_room();
        let lacks = |class: &Class| self.room.fits(&self.namespace, class) == 0;
        let crowded = served.iter().any(lacks) || self.room.kept_for(&self.namespace).is_some();
        let rivals = served.len() > 1 || !self.alone;
        if !crowded || !rivals || self.health.phase() == Phase::Draining {
            return Ok(());
        }
        let after = self.settings.reserve_after_ms;
        let reserved = (self.queue)
            .reserve(&self.worker, after, RESERVATION, &served)
            .await?;
        match reserved {
            Some(class) => self.room.keep_for(&self.namespace, &class),
            None => self.room.keep_for_nobody(&self.namespace),
        }
        Ok(())
    }

    /// Reads the whole queue for its metrics, and says which of its work nobody will do. What this worker serves is
    /// routable, so it asks about the rest only.
    async fn look_over(&mut self) -> Result<(), QueueError> {
        let snapshot = self.queue.snapshot().await?;
        metrics::queue(&self.namespace, &snapshot);
        let draining = self.health.phase() == Phase::Draining;
        let tags = &self.lanes.offered();
        let doubtful: Vec<&Class> = snapshot
            .classes
            .iter()
            .filter(|depth| depth.ready > 0)
            .map(|depth| &depth.class)
            .filter(|class| draining || !class.is_covered_by(tags) || !self.room.could_hold(class))
            .collect();
        let unroutable = self.queue.mark_unroutable(&doubtful).await?;
        for found in &unroutable {
            if !self.unroutable.contains(&found.class) {
                tracing::warn!(class = %found.class, jobs = found.jobs, lack = found.lack.as_str(), "no worker serves this class");
            }
        }
        let told = std::mem::take(&mut self.unroutable);
        self.unroutable = unroutable.iter().map(|found| found.class.clone()).collect();
        for depth in &snapshot.classes {
            if !self.unroutable.contains(&depth.class) {
                metrics::unroutable(&self.namespace, &depth.class, 0);
            }
        }
        for class in told.difference(&self.unroutable) {
            metrics::unroutable(&self.namespace, class, 0);
            tracing::info!(class = %class, "class is served, or has nothing ready");
        }
        for found in &unroutable {
            metrics::unroutable(&self.namespace, &found.class, found.jobs);
        }
        Ok(())
    }

    /// What the worker's namespaces share is measured once.
    fn measure(&self) {
        if !self.first {
            return;
        }
        metrics::slots(self.lanes.slots(self.total_slots), self.busy());
        metrics::gpus(&self.lanes.gpus());
        if let Some((_engine, pool)) = &self.sandboxes {
            metrics::pool(&pool.counts());
        }
        metrics::models(&self.model_facts());
    }

    fn model_facts(&self) -> Vec<ModelFacts> {
        self.models.as_ref().map_or(Vec::new(), Models::facts)
    }

    fn busy(&self) -> usize {
        self.running.len()
    }

    async fn announce(&self) -> Result<(), QueueError> {
        let facts = WorkerFacts {
            id: self.worker.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            host: name::host(),
            pid: std::process::id(),
            started_at: self.started_at,
            draining: self.health.phase() == Phase::Draining,
            labels: self.lanes.offered(),
            slots: u32::try_from(self.lanes.slots(self.total_slots)).unwrap_or(u32::MAX),
            busy: u32::try_from(self.busy()).unwrap_or(u32::MAX),
            pool: self
                .sandboxes
                .as_ref()
                .map(|(_, pool)| pool.counts().facts()),
            largest: self.room.largest(),
            reserved_for: self.room.kept_for(&self.namespace),
            models: self.model_facts(),
            gpus: self.lanes.gpus(),
        };
        self.queue.announce(&facts, self.record_life()).await
    }

    /// How long the worker's record outlives its last word: two leases, and never less than 30 seconds.
    fn record_life(&self) -> Millis {
        Millis(self.settings.lease_ms.0.saturating_mul(2).max(30_000))
    }

    /// Serves every known class that its labels cover and whose jobs have room here, and its own whole set of labels before anybody asked for it.
    async fn learn_classes(&mut self) -> Result<(), QueueError> {
        let mut known: Vec<Class> = self.queue.classes().await?;
        known.push(Class::default());
        known.retain(|class| self.room.could_hold(class));
        self.lanes.learn(known).await
    }

    async fn reap(&self) -> Result<(), QueueError> {
        let Some((engine, _pool)) = self.sandboxes.as_ref().filter(|_| self.first) else {
            return Ok(());
        };
        let mut alive: Vec<WorkerId> = self
            .queue
            .workers()
            .await?
            .into_iter()
            .map(|record| record.facts.id)
            .collect();
        alive.push(self.worker.clone());
        match engine.reap(&alive).await {
            Ok(0) => {}
            Ok(removed) => tracing::warn!(removed, "removed containers of dead workers"),
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "containers not looked over"
            ),
        }
        Ok(())
    }
}

/// Listens for cancels until `stop`; the reader is unblocked by then. The heartbeat's answer carries those missed.
pub(super) async fn hear(mut control: ControlReader, leases: Leases, stop: CancellationToken) {
    let mut patience = Patience::new("control");
    while !stop.is_cancelled() {
        match control.next(BLOCK).await {
            Ok(events) => {
                patience.restore();
                for event in events {
                    match event {
                        ControlEvent::Cancel(id) => leases.cancel(&id),
                    }
                }
            }
            Err(error) => patience.wear(&error, &stop).await,
        }
    }
}
