//! Maintenance: one worker of a namespace at a time does a round of it; `duty.rs` chooses that
//! worker.

use crate::resp::RespValue;
use crate::script::{SCRIPT_BATCH, TICK};
use crate::{Queue, QueueError};
use sandhog_core::units::Millis;

/// Idle time, in leases, after which a consumer is removed. It holds no entries then, so its
/// removal is never urgent.
const CONSUMER_IDLE_LEASES: u64 = 20;

/// Maximum number of calls of one round for each chunk of classes; the next round continues.
const CALLS_PER_CHUNK_MAX: usize = 64;

/// Result of one round of maintenance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MaintenanceReport {
    /// Delayed jobs whose start time had come, now ready.
    pub promoted: u64,
    /// Jobs whose time to live had passed, now expired.
    pub expired: u64,
    /// Jobs taken back from workers that no longer renewed their leases, now queued again.
    pub reaped: u64,
    /// Jobs lost too many times, now dead letters.
    pub given_up: u64,
    /// Jobs of dead workers that were cancelled, because their cancel was requested before.
    pub cancelled: u64,
    /// Tickets that a worker read and did not bind, now issued again.
    pub reissued: u64,
    /// Tickets that classes with ready jobs lacked, because tickets were deleted by hand. They are
    /// withheld now.
    pub restored: u64,
    /// Consumers removed, whose workers have been gone for long.
    pub consumers_removed: u64,
    /// Workers removed from the list, because their announcements have expired.
    pub workers_removed: u64,
    /// Classes removed, because they were not used for an hour. Their next job creates them again.
    pub classes_forgotten: u64,
    /// Withheld tickets that were issued: for jobs held back by their tenants' limits or by a pause
    /// that may start now, and for jobs that had no ticket.
    pub released: u64,
    /// Time until a tenant's rate allows the next job that it holds back. The next round should
    /// come no later.
    pub next_start: Option<Millis>,
    /// Time for which no lease is taken back, because there was no maintenance for a while: Redis
    /// was unreachable, or all workers were down. Live workers have this time to renew their
    /// leases.
    pub reclaim_pause: Millis,
}

impl MaintenanceReport {
    /// Returns whether there was nothing to do.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        *self == Self::default()
    }
}

impl Queue {
    /// Does a whole round of maintenance: [`Queue::maintain`] with a sweep.
    ///
    /// # Errors
    /// As [`Queue::maintain`].
    pub async fn maintain_fully(
        &self,
        lease: Millis,
        max_lost: u32,
    ) -> Result<MaintenanceReport, QueueError> {
        self.maintain(lease, max_lost, true).await
    }

    /// Does a round of maintenance. It promotes delayed jobs, expires jobs, takes back jobs whose
    /// leases were not renewed for `lease`, and gives up jobs that were lost `max_lost` times. With
    /// `sweeps` it also removes the traces of dead workers, and classes that have been out of use
    /// for long.
    ///
    /// After a time without maintenance, no lease is taken back for the length of one lease.
    ///
    /// All workers of a namespace must use the same lease: a worker with a shorter one takes back
    /// jobs that the others still hold.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached; the work done before that stays done.
    pub async fn maintain(
        &self,
        lease: Millis,
        max_lost: u32,
        sweeps: bool,
    ) -> Result<MaintenanceReport, QueueError> {
        let classes = self.classes().await?;
        let mut report = MaintenanceReport::default();
        let mut chunks: Vec<_> = classes.chunks(SCRIPT_BATCH).collect();
        if chunks.is_empty() {
            chunks.push(&[]);
        }
        for (n, chunk) in chunks.into_iter().enumerate() {
            for _ in 0..CALLS_PER_CHUNK_MAX {
                let mut call = TICK
                    .call(self.keys.prefix())
                    .arg(lease.0)
                    .arg(max_lost)
                    .arg(lease.0.saturating_mul(CONSUMER_IDLE_LEASES))
                    .arg(SCRIPT_BATCH)
                    .arg(u8::from(n == 0))
                    .arg(u8::from(sweeps));
                for class in chunk {
                    call.push(class.as_str());
                }
                let mut counts =
                    RespValue::new("tick", call.run(&self.connection).await?).parts()?;
                for total in [
                    &mut report.promoted,
                    &mut report.expired,
                    &mut report.reaped,
                    &mut report.given_up,
                    &mut report.cancelled,
                    &mut report.reissued,
                    &mut report.restored,
                    &mut report.consumers_removed,
                    &mut report.workers_removed,
                    &mut report.classes_forgotten,
                    &mut report.released,
                ] {
                    *total += counts.part()?.number::<u64>()?;
                }
                let more = counts.part()?.number::<u8>()? == 1;
                let next = counts.part()?.maybe_number()?.map(Millis);
                report.next_start = match (report.next_start, next) {
                    (Some(before), Some(next)) => Some(before.min(next)),
                    (before, next) => before.or(next),
                };
                report.reclaim_pause = Millis(counts.part()?.number()?);
                if !more {
                    break;
                }
            }
        }
        Ok(report)
    }
}
