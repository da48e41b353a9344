//! The loop that does the maintenance of one worker in one namespace.

use std::ops::RangeInclusive;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use sandhog_core::units::Millis;
use sandhog_queue::QueueError;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::announcer::Announcer;
use super::measure::measure_worker;
use super::namespace_identity::NamespaceIdentity;
use super::promoter::Promoter;
use super::queue_survey::QueueSurvey;
use super::reaper::Reaper;
use super::reserver::Reserver;
use super::warm_containers::WarmContainers;
use super::worker_load::WorkerLoad;
use crate::backoff::{LoopBackoff, jittered};
use crate::health::Health;
use crate::metrics;

/// Interval between two turns of a worker, and period of the namespace's maintenance.
const TURN_INTERVAL: Duration = Duration::from_millis(500);

/// Random factors of that interval, so that workers do not act at the same moment.
const TURN_JITTER: RangeInclusive<f64> = 0.75..=1.25;

/// Minimum time between two reads of the list of classes that the announcements of other workers
/// trigger.
const CLASS_REFRESH_PAUSE: Duration = Duration::from_millis(100);

/// Minimum time between two turns, however soon a tenant's rate limit allows the next job.
const MIN_TURN_INTERVAL: Duration = Duration::from_millis(20);

/// Number of turns after which the worker announces itself again and refreshes its metrics, if they
/// are scraped.
const TURNS_PER_ANNOUNCEMENT: u32 = 8;

/// Number of turns between two searches for containers of dead workers.
const TURNS_PER_REAPING: u32 = 60;

/// The maintenance loop of one worker in one namespace.
#[derive(Debug)]
pub(crate) struct MaintenanceLoop {
    /// Notified when there may be a class that is not known yet.
    pub(crate) class_found: Arc<Notify>,
    /// `true` for the namespace that also sets the metrics that all namespaces share.
    pub(crate) is_first: bool,
    pub(crate) health: Arc<Health>,
    pub(crate) load: Arc<WorkerLoad>,
    pub(crate) identity: NamespaceIdentity,
    pub(crate) announcer: Announcer,
    pub(crate) promoter: Promoter,
    pub(crate) reserver: Reserver,
    pub(crate) survey: QueueSurvey,
    /// `None` unless this namespace also maintains the containers.
    pub(crate) warm_containers: Option<WarmContainers>,
    /// `None` unless this namespace also maintains the containers.
    pub(crate) reaper: Option<Reaper>,
}

impl MaintenanceLoop {
    /// Does the maintenance that must precede the first claim. The worker announces itself before
    /// it removes the containers of dead workers.
    pub(crate) async fn prepare(&mut self) -> Result<(), QueueError> {
        self.identity.read().await?;
        self.announcer.announce().await?;
        self.announcer.refresh_classes().await?;
        // Every gauge gets a value before the metrics can be scraped.
        metrics::maintenance_round(0, 0);
        self.measure();
        self.survey.survey_queue(true).await?;
        match &self.reaper {
            Some(reaper) => reaper.reap().await,
            None => Ok(()),
        }
    }

    /// Runs turns until `stop` is cancelled.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut backoff = LoopBackoff::new("upkeep");
        let mut turn = 0_u32;
        let mut pause = jittered(TURN_INTERVAL, TURN_JITTER);
        while let Some(slept) = stop.run_until_cancelled(self.sleep(pause)).await {
            if let Err(error) = slept {
                backoff.record_failure(&error, &stop).await;
            }
            turn = turn.wrapping_add(1);
            pause = jittered(TURN_INTERVAL, TURN_JITTER);
            if self.is_first {
                metrics::drain_histograms();
            }
            match self.turn(turn).await {
                Ok(next_start) => {
                    backoff.reset();
                    if let Some(next) = next_start {
                        pause = pause.min(next.duration().max(MIN_TURN_INTERVAL));
                    }
                }
                Err(error) => backoff.record_failure(&error, &stop).await,
            }
        }
    }

    /// Sleeps until the next turn. Meanwhile it rereads the classes whenever a new one is
    /// announced.
    async fn sleep(&mut self, pause: Duration) -> Result<(), QueueError> {
        let end = tokio::time::sleep(pause);
        let mut end = pin!(end);
        let class_found = Arc::clone(&self.class_found);
        loop {
            tokio::select! {
                () = &mut end => return Ok(()),
                () = class_found.notified() => {
                    self.announcer.refresh_classes().await?;
                    tokio::time::sleep(CLASS_REFRESH_PAUSE).await;
                }
            }
        }
    }

    /// Does one turn. Returns the time until the next one if a tenant's rate limit delays jobs
    /// until then.
    async fn turn(&mut self, turn: u32) -> Result<Option<Millis>, QueueError> {
        let next_start = if self.promoter.should_ask() {
            self.maintain_namespace().await?
        } else {
            None
        };
        self.reserver.update_reservation().await?;
        if let Some(warm_containers) = &self.warm_containers {
            warm_containers.keep_warm(&self.load).await;
        }
        self.measure();
        if turn.is_multiple_of(TURNS_PER_ANNOUNCEMENT) {
            self.check_identity().await?;
            self.announcer.announce().await?;
            self.announcer.refresh_classes().await?;
            if self.health.is_scraped() {
                self.survey.survey_queue(false).await?;
            }
        }
        if turn.is_multiple_of(TURNS_PER_REAPING) {
            self.reap_when_sure().await?;
        }
        Ok(next_start)
    }

    /// Asks for the next round of the namespace's maintenance and does it if Redis assigns it to
    /// this worker.
    async fn maintain_namespace(&mut self) -> Result<Option<Millis>, QueueError> {
        let Some(round) = self.promoter.take_round(TURN_INTERVAL).await? else {
            return Ok(None);
        };
        if round.checks_unroutable {
            self.survey.survey_queue(true).await?;
        }
        self.promoter.end_round(round);
        Ok(round.next_start)
    }

    /// Checks whether the namespace still exists. If it vanished, the worker announces itself at
    /// once, so that other workers do not remove its containers as those of a dead worker.
    async fn check_identity(&mut self) -> Result<(), QueueError> {
        if self.identity.has_changed().await? {
            self.announcer.announce().await?;
        }
        Ok(())
    }

    /// Updates the metrics that the worker's namespaces share.
    fn measure(&self) {
        if self.is_first {
            measure_worker(&self.load);
        }
    }

    /// Removes the containers of dead workers, unless Redis was unreachable a short time ago or has
    /// been replaced: then other workers may not have announced themselves yet.
    async fn reap_when_sure(&mut self) -> Result<(), QueueError> {
        if self.reaper.is_none() {
            return Ok(());
        }
        self.check_identity().await?;
        self.maintain_namespace().await?;
        match &self.reaper {
            Some(reaper)
                if !self.identity.has_changed_recently() && !self.promoter.is_in_lease_grace() =>
            {
                reaper.reap().await
            }
            Some(_) | None => Ok(()),
        }
    }
}
