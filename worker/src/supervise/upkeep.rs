//! Periodic maintenance by a worker, with jitter, in addition to running jobs.
//!
//! Each worker announces itself, learns new classes, and removes the containers of dead workers.
//! The maintenance of the namespace itself is shared by all its workers: one of them, which Redis
//! selects, does a round in each period. A round promotes delayed jobs, takes back the leases of
//! silent workers and finds unroutable work.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sandhog_common::class::Class;
use sandhog_common::config::{Warm, WorkerSettings};
use sandhog_common::id::{Namespace, Tag, WorkerId};
use sandhog_common::queue::{
    ControlEvent, ControlReader, ModelFacts, Queue, QueueError, Snapshot, Unroutable,
    UpkeepRequest, WorkerFacts,
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
use crate::metrics::ClassLabels;
use crate::models::Models;
use crate::pool::Pool;
use crate::room::Room;
use crate::sandbox::Engine;
use crate::{metrics, name};

/// Interval between two turns of a worker, and period of the namespace's maintenance.
const TURN: Duration = Duration::from_millis(500);

/// Interval at which a worker outside the crew asks Redis whether the crew has a free place. Only
/// workers of the crew ask in every turn.
const STANDBY: Duration = Duration::from_secs(5);

/// Minimum time between two reads of the list of classes that the announcements of other workers
/// trigger.
const LEARN_PAUSE: Duration = Duration::from_millis(100);

/// Maximum number of classes that a warning names; the others are only counted.
const NAMED_CLASSES: usize = 3;

/// Minimum time between two turns, however soon a tenant's rate limit allows the next job.
const SHORTEST: Duration = Duration::from_millis(20);

/// Number of turns after which the worker announces itself again and refreshes its metrics, if they
/// are scraped.
const ANNOUNCE_EVERY: u32 = 8;

/// Lifetime of a reservation that is not renewed: a few turns.
const RESERVATION: Millis = Millis(3_000);

/// Number of turns between two searches for containers of dead workers.
const REAP_EVERY: u32 = 60;

/// Time after the loss of a namespace in which no containers of other workers are removed. The
/// other workers use it to announce themselves again.
const REAP_PAUSE: Duration = Duration::from_secs(30);

/// Timeout of one blocking read of the control stream.
const BLOCK: Duration = Duration::from_secs(5);

/// The maintenance loop of one worker in one namespace.
#[derive(Debug)]
pub(super) struct Upkeep {
    pub(super) namespace: Namespace,
    pub(super) queue: Queue,
    pub(super) worker: WorkerId,
    pub(super) settings: WorkerSettings,
    /// Images for which unused containers are kept ready.
    pub(super) warm: Vec<Warm>,
    pub(super) total_slots: usize,
    /// Memory and CPU for the jobs of all namespaces.
    pub(super) room: Room,
    /// `true` if no other namespace uses that capacity.
    pub(super) alone: bool,
    /// Notified when there may be a class that is not known yet.
    pub(super) learn: Arc<Notify>,
    /// The attempts of all namespaces of the worker.
    pub(super) running: TaskTracker,
    pub(super) lanes: Lanes,
    pub(super) sandboxes: Option<(Engine, Pool)>,
    pub(super) models: Option<Models>,
    /// `true` for the namespace that also maintains the containers.
    pub(super) first: bool,
    pub(super) health: Arc<Health>,
    pub(super) pulse: Pulse,
    pub(super) started_at: UnixMillis,
    /// The leases held in this namespace.
    pub(super) leases: Leases,
    /// Identity of the namespace; differs if the namespace was created anew in its place. `None`
    /// before the first check.
    pub(super) identity: Option<Uuid>,
    /// Time of the last detected change of the identity.
    pub(super) lost: Option<Instant>,
    /// The classes that were unroutable at the last check.
    pub(super) unroutable: BTreeSet<Class>,
    /// The classes that have their own metrics.
    pub(super) labels: ClassLabels,
    /// Notified when this worker does a round of the namespace's maintenance.
    pub(super) round: Arc<Notify>,
    /// The worker's part in that maintenance.
    pub(super) duty: Duty,
}

/// A worker's part in the maintenance of its namespace, according to the last reply of Redis.
#[derive(Debug, Default)]
pub(super) struct Duty {
    /// The worker belongs to the crew, which asks for a round in every turn.
    is_on_crew: bool,
    /// Time of the last request.
    asked: Option<Instant>,
    /// The next round must come early, because a tenant's rate limit allows its next job by then.
    hurries: bool,
    /// Time during which no lease is taken back, because there was no maintenance for a while.
    patient: Millis,
}

impl Duty {
    fn is_to_ask(&self) -> bool {
        self.is_on_crew || self.asked.is_none_or(|asked| asked.elapsed() >= STANDBY)
    }
}

impl Upkeep {
    /// Does the maintenance that must precede the first claim. The worker announces itself before
    /// it removes the containers of dead workers.
    pub(super) async fn first(&mut self) -> Result<(), QueueError> {
        self.identity = Some(self.queue.identity().await?);
        metrics::vanished(&self.namespace, 0, 0);
        self.announce().await?;
        self.learn_classes().await?;
        // Every gauge gets a value before the metrics can be scraped.
        metrics::upkeep(0, 0);
        self.measure();
        self.look_over(true).await?;
        self.reap().await
    }

    /// Runs turns until `stop` is cancelled.
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

    /// Sleeps until the next turn. Meanwhile it rereads the classes whenever a new one is
    /// announced.
    async fn sleep(&mut self, pause: Duration) -> Result<(), QueueError> {
        let end = tokio::time::sleep(pause);
        let mut end = pin!(end);
        let learn = Arc::clone(&self.learn);
        loop {
            tokio::select! {
                () = &mut end => return Ok(()),
                () = learn.notified() => {
                    self.learn_classes().await?;
                    tokio::time::sleep(LEARN_PAUSE).await;
                }
            }
        }
    }

    /// Does one turn. Returns the time until the next one if a tenant's rate limit delays jobs
    /// until then.
    async fn turn(&mut self, turn: u32) -> Result<Option<Millis>, QueueError> {
        let next_start = if self.duty.is_to_ask() {
            self.keep_up().await?
        } else {
            None
        };
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
            self.notice_loss().await?;
            self.announce().await?;
            self.learn_classes().await?;
            if self.health.is_scraped() {
                self.look_over(false).await?;
            }
        }
        if turn.is_multiple_of(REAP_EVERY) && self.first && self.sandboxes.is_some() {
            self.reap_when_sure().await?;
        }
        Ok(next_start)
    }

    /// Asks for the next round of the namespace's maintenance and does it if Redis assigns it to
    /// this worker.
    async fn keep_up(&mut self) -> Result<Option<Millis>, QueueError> {
        let request = if self.health.phase() == Phase::Draining {
            UpkeepRequest::Leave
        } else if self.duty.hurries {
            UpkeepRequest::Now
        } else {
            UpkeepRequest::Take
        };
        let (period, lease) = (Millis::from(TURN), self.settings.lease_ms);
        let duty = self
            .queue
            .upkeep_duty(&self.worker, period, lease, request)
            .await?;
        self.pulse.beat();
        self.duty = Duty {
            is_on_crew: duty.is_on_crew,
            asked: Some(Instant::now()),
            hurries: false,
            patient: duty.patient,
        };
        if !duty.is_due {
            return Ok(None);
        }
        self.round.notify_one();
        let report = self
            .queue
            .keep_up(lease, self.settings.max_lost, duty.sweeps)
            .await?;
        metrics::upkeep(report.reaped, report.promoted);
        if duty.looks {
            self.look_over(true).await?;
        }
        self.duty.hurries = report.next_start.is_some();
        Ok(report.next_start)
    }

    /// Checks whether Redis still holds the namespace that this worker's leases belong to. If the
    /// namespace was emptied or replaced, Redis does not have these leases any more, and the
    /// results of running jobs would be rejected. So the worker stops its attempts and announces
    /// itself, so that other workers do not remove its containers as those of a dead worker.
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
        self.lost = Some(Instant::now());
        self.leases.interrupt_all(Interrupt::LeaseLost);
        self.announce().await
    }

    /// Makes or ends the reservation for a job that has been passed over for a long time, if Redis
    /// assigns it to this worker.
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

    /// Reads the whole queue for its metrics. With `mark`, which is set if this worker does the
    /// namespace's maintenance, it also marks the unroutable classes. Classes that this worker
    /// serves are routable, so it checks only the others.
    async fn look_over(&mut self, mark: bool) -> Result<(), QueueError> {
        let snapshot = self.queue.snapshot().await?;
        let draining = self.health.phase() == Phase::Draining;
        let tags = &self.lanes.offered();
        let serves = |class: &Class| class.is_covered_by(tags) && self.room.could_hold(class);
        let doubtful: Vec<&Class> = snapshot
            .classes
            .iter()
            .filter(|depth| depth.ready > 0)
            .map(|depth| &depth.class)
            .filter(|class| draining || !serves(class))
            .collect();
        let unroutable = if mark {
            self.queue.mark_unroutable(&doubtful).await?
        } else {
            self.queue.unroutable_among(&doubtful).await?
        };
        self.labels
            .measure(&self.namespace, &snapshot, &unroutable, serves);
        self.warn_of(&unroutable, &snapshot);
        Ok(())
    }

    /// Logs the classes that became unroutable since the last check and those that no longer are. A
    /// few are named, the others are only counted.
    fn warn_of(&mut self, unroutable: &[Unroutable], snapshot: &Snapshot) {
        let now: BTreeSet<Class> = unroutable.iter().map(|found| found.class.clone()).collect();
        let before = std::mem::replace(&mut self.unroutable, now);
        let new: Vec<&Unroutable> = (unroutable.iter())
            .filter(|found| !before.contains(&found.class))
            .collect();
        for found in new.iter().take(NAMED_CLASSES) {
            tracing::warn!(
                class = %found.class,
                jobs = found.jobs,
                lack = found.lack.as_str(),
                "no worker serves this class"
            );
        }
        if let Some(more) = new.get(NAMED_CLASSES..).filter(|more| !more.is_empty()) {
            let jobs: u64 = more.iter().map(|found| found.jobs).sum();
            tracing::warn!(
                classes = more.len(),
                jobs,
                of = snapshot.classes.len(),
                "no worker serves these further classes"
            );
        }
        let served: Vec<&Class> = before.difference(&self.unroutable).collect();
        for class in served.iter().take(NAMED_CLASSES) {
            tracing::info!(class = %class, "class is served, or has nothing ready");
        }
        if served.len() > NAMED_CLASSES {
            tracing::info!(
                classes = served.len() - NAMED_CLASSES,
                "more classes are served, or have nothing ready"
            );
        }
    }

    /// Updates the metrics of everything that the worker's namespaces share. Only the first
    /// namespace does so.
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
            max_payload: Some(self.settings.max_payload),
            reserved_for: self.room.kept_for(&self.namespace),
            models: self.model_facts(),
            gpus: self.lanes.gpus(),
        };
        self.queue.announce(&facts, self.record_life()).await
    }

    /// Returns the time for which the worker's record is kept after its last announcement: two
    /// leases, and at least 30 seconds.
    fn record_life(&self) -> Millis {
        Millis(self.settings.lease_ms.0.saturating_mul(2).max(30_000))
    }

    /// Refreshes the classes to claim from: the known classes that the worker's tags cover and
    /// whose jobs fit its capacity, and the default class even before its first job arrives.
    async fn learn_classes(&mut self) -> Result<(), QueueError> {
        let mut known: Vec<Class> = self.queue.classes().await?;
        known.push(Class::default());
        known.retain(|class| self.room.could_hold(class));
        self.lanes.learn(known).await
    }

    /// Removes the containers of dead workers, unless Redis was unreachable a short time ago or has
    /// been replaced: then other workers may not have announced themselves yet.
    async fn reap_when_sure(&mut self) -> Result<(), QueueError> {
        self.notice_loss().await?;
        self.keep_up().await?;
        let lost = self.lost.is_some_and(|lost| lost.elapsed() < REAP_PAUSE);
        if lost || self.duty.patient > Millis(0) {
            return Ok(());
        }
        self.reap().await
    }

    async fn reap(&self) -> Result<(), QueueError> {
        let Some((engine, _pool)) = self.sandboxes.as_ref().filter(|_| self.first) else {
            return Ok(());
        };
        let mut alive: Vec<WorkerId> = self.queue.worker_ids().await?;
        alive.push(self.worker.clone());
        match engine.reap(&alive).await {
            Ok(0) => {}
            Ok(removed) => tracing::warn!(removed, "removed containers of dead workers"),
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "containers of dead workers not removed"
            ),
        }
        Ok(())
    }
}

/// Handlers of control stream events for one namespace of a worker.
#[derive(Debug)]
pub(super) struct News {
    /// The leases held in the namespace.
    pub(super) leases: Leases,
    /// Tags of the classes that the worker may serve; `None` if that depends on its GPUs.
    pub(super) tags: Option<BTreeSet<Tag>>,
    /// Notified when such a class appears or is forgotten.
    pub(super) learn: Arc<Notify>,
}

/// Processes control events until `stop` is cancelled; the caller unblocks the reader after that. A
/// missed cancel arrives with the next heartbeat reply, and a missed class is found at the next
/// announcement.
pub(super) async fn hear(mut control: ControlReader, news: News, stop: CancellationToken) {
    let mut patience = Patience::new("control");
    while !stop.is_cancelled() {
        match control.next(BLOCK).await {
            Ok(events) => {
                patience.restore();
                for event in events {
                    match event {
                        ControlEvent::Cancel(id) => news.leases.cancel(&id),
                        ControlEvent::Class(class) => {
                            let tags = news.tags.as_ref();
                            if tags.is_none_or(|tags| class.is_covered_by(tags)) {
                                news.learn.notify_one();
                            }
                        }
                    }
                }
            }
            Err(error) => patience.wear(&error, &stop).await,
        }
    }
}
