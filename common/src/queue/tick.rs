//! Upkeep: a round of it is done by one of a namespace's workers at a time, which `duty.rs`
//! chooses.

use super::reply::Reply;
use super::script::{MOST, TICK};
use super::{Queue, QueueError};
use crate::units::Millis;

/// How many leases a consumer must have been silent before it is removed: it holds nothing, so it is never urgent.
const SILENT_LEASES: u64 = 20;

/// How many calls one round makes at most; the next round goes on.
const MOST_CALLS: usize = 64;

/// What one round of upkeep did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TickReport {
    /// Delayed jobs whose time had come.
    pub promoted: u64,
    /// Jobs whose time to live had passed.
    pub expired: u64,
    /// Jobs taken back from workers that stopped renewing, and queued again.
    pub reaped: u64,
    /// Jobs lost once too often: dead letters.
    pub given_up: u64,
    /// Jobs of dead workers that somebody had wanted cancelled.
    pub cancelled: u64,
    /// Tickets read by a worker that never bound them, issued again.
    pub reissued: u64,
    /// Tickets that classes with ready jobs lacked, because somebody deleted some by hand. Now they are owed.
    pub mended: u64,
    /// Consumers of long-gone workers, removed.
    pub consumers_removed: u64,
    /// Workers no longer heard of, removed from the list.
    pub workers_removed: u64,
    /// Classes nobody has used for an hour, forgotten until their next job.
    pub classes_forgotten: u64,
    /// Tickets given out that were owed: for jobs held back by their tenants' limits or by a pause that may start by
    /// now, and for those that had none.
    pub released: u64,
    /// How long until a tenant's rate allows the next job that it holds back. The next round should come no later.
    pub next_start: Option<Millis>,
    /// How long no lease is taken back, because nobody did upkeep for a while before: Redis was away, or every worker.
    /// Those that live have this long to renew theirs.
    pub patient: Millis,
}

impl TickReport {
    /// Whether there was nothing to do.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        *self == Self::default()
    }
}

impl Queue {
    /// One whole round of upkeep: [`Queue::keep_up`] with a sweep.
    ///
    /// # Errors
    /// As [`Queue::keep_up`].
    pub async fn tick(&self, lease: Millis, max_lost: u32) -> Result<TickReport, QueueError> {
        self.keep_up(lease, max_lost, true).await
    }

    /// One round of upkeep: promotes, expires, takes back what has not been renewed for `lease`,
    /// and gives up what has been lost `max_lost` times. With `sweeps` it also removes what dead
    /// workers left, and classes that have been out of use for long.
    ///
    /// After a time in which nobody called, nothing is taken back for one lease.
    ///
    /// Every worker of a namespace must use the same lease: one with a shorter lease takes back what the others
    /// still hold.
    ///
    /// # Errors
    /// When Redis cannot be reached; what was done stays done.
    pub async fn keep_up(
        &self,
        lease: Millis,
        max_lost: u32,
        sweeps: bool,
    ) -> Result<TickReport, QueueError> {
        let classes = self.classes().await?;
        let mut report = TickReport::default();
        let mut chunks: Vec<_> = classes.chunks(MOST).collect();
        if chunks.is_empty() {
            chunks.push(&[]);
        }
        for (n, chunk) in chunks.into_iter().enumerate() {
            for _ in 0..MOST_CALLS {
                let mut call = TICK
                    .call(self.keys.prefix())
                    .arg(lease.0)
                    .arg(max_lost)
                    .arg(lease.0.saturating_mul(SILENT_LEASES))
                    .arg(MOST)
                    .arg(u8::from(n == 0))
                    .arg(u8::from(sweeps));
                for class in chunk {
                    call.push(class.as_str());
                }
                let mut counts = Reply::new("tick", call.run(&self.link).await?).parts()?;
                for total in [
                    &mut report.promoted,
                    &mut report.expired,
                    &mut report.reaped,
                    &mut report.given_up,
                    &mut report.cancelled,
                    &mut report.reissued,
                    &mut report.mended,
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
                report.patient = Millis(counts.part()?.number()?);
                if !more {
                    break;
                }
            }
        }
        Ok(report)
    }
}
