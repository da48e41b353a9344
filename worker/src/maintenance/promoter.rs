//! The rounds of a namespace's maintenance: delayed jobs are promoted, and the leases of silent
//! workers are taken back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sandhog_config::WorkerSettings;
use sandhog_core::id::WorkerId;
use sandhog_core::units::Millis;
use sandhog_queue::{MaintenanceRequest, Queue, QueueError};
use tokio::sync::Notify;

use crate::health::{Health, RedisLiveness, WorkerPhase};
use crate::metrics;

/// Interval at which a worker that is no candidate asks Redis whether it is one now. Only
/// candidates ask in every turn.
const STANDBY_INTERVAL: Duration = Duration::from_secs(5);

/// Does the rounds of the namespace's maintenance that Redis assigns to this worker.
#[derive(Debug)]
pub(crate) struct Promoter {
    queue: Queue,
    worker: WorkerId,
    settings: WorkerSettings,
    health: Arc<Health>,
    liveness: RedisLiveness,
    /// Notified when this worker does a round.
    round: Arc<Notify>,
    /// The worker's part in the maintenance.
    duty: Duty,
}

/// A worker's part in the maintenance of its namespace, according to the last reply of Redis.
#[derive(Debug, Default)]
struct Duty {
    /// `true` if the worker asks for a round in every turn.
    is_candidate: bool,
    /// Time of the last request.
    asked: Option<Instant>,
    /// `true` if the next round must come early, because a tenant's rate limit allows its next job
    /// by then.
    next_round_early: bool,
    /// Time during which no lease is taken back, because there was no maintenance for a while.
    lease_grace: Millis,
}

/// A round that this worker has done.
#[derive(Debug, Clone, Copy)]
pub(super) struct Round {
    /// Time until the next start of a job that a tenant's rate limit delays, if there is one.
    pub(super) next_start: Option<Millis>,
    /// `true` if the round includes a check for unroutable work, which the caller does.
    pub(super) checks_unroutable: bool,
}

impl Promoter {
    /// Creates the duty of a worker that has not asked for a round yet.
    pub(crate) fn new(
        queue: Queue,
        worker: WorkerId,
        settings: WorkerSettings,
        health: Arc<Health>,
        liveness: RedisLiveness,
        round: Arc<Notify>,
    ) -> Self {
        Self {
            queue,
            worker,
            settings,
            health,
            liveness,
            round,
            duty: Duty::default(),
        }
    }

    /// Returns whether the worker should ask for a round in this turn.
    pub(super) fn should_ask(&self) -> bool {
        let Duty {
            is_candidate,
            asked,
            ..
        } = &self.duty;
        *is_candidate || asked.is_none_or(|asked| asked.elapsed() >= STANDBY_INTERVAL)
    }

    /// Returns whether leases are not taken back for now, because there was no maintenance for a
    /// while.
    pub(super) fn is_in_lease_grace(&self) -> bool {
        self.duty.lease_grace > Millis(0)
    }

    /// Asks for the next round and does it if Redis assigns it to this worker. `period` is the
    /// interval of the rounds.
    pub(super) async fn take_round(
        &mut self,
        period: Duration,
    ) -> Result<Option<Round>, QueueError> {
        let request = if self.health.phase() == WorkerPhase::Draining {
            MaintenanceRequest::Leave
        } else if self.duty.next_round_early {
            MaintenanceRequest::Now
        } else {
            MaintenanceRequest::Take
        };
        let (period, lease) = (Millis::from(period), self.settings.lease_ms);
        let duty = self
            .queue
            .maintenance_duty(&self.worker, period, lease, request)
            .await?;
        self.liveness.record();
        self.duty = Duty {
            is_candidate: duty.is_candidate,
            asked: Some(Instant::now()),
            next_round_early: false,
            lease_grace: duty.reclaim_pause,
        };
        if !duty.is_due {
            return Ok(None);
        }
        self.round.notify_one();
        let report = self
            .queue
            .maintain(lease, self.settings.max_lost, duty.sweeps)
            .await?;
        metrics::maintenance_round(report.reaped, report.promoted);
        Ok(Some(Round {
            next_start: report.next_start,
            checks_unroutable: duty.checks_unroutable,
        }))
    }

    /// Ends a round: the next one comes early if a job may start before its time.
    pub(super) fn end_round(&mut self, round: Round) {
        self.duty.next_round_early = round.next_start.is_some();
    }
}
