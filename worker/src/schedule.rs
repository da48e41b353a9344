//! Fires schedules: decides which due times get a job, and when the next one is.
//!
//! The worker that does a round of maintenance for the namespace fires the schedules too. If two
//! workers do so at once, the queue accepts each firing from only one of them. A schedule that this
//! worker cannot parse is postponed, because a worker of another version may be able to parse it.

use std::sync::Arc;

use sandhog_core::cron::CronSchedule;
use sandhog_core::schedule::{CAUGHT_UP_FIRINGS_MAX, Missed};
use sandhog_core::units::{Millis, UnixMillis};
use sandhog_queue::{DueSchedule, FireReply, Firing, Queue, QueueError};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::backoff::LoopBackoff;
use crate::metrics;

/// Maximum number of missed firings that are counted. With more of them, the reported number of
/// skipped firings is too low.
const MAX_COUNTED_FIRINGS: usize = 1000;

/// Maximum number of rounds in one call; the next call continues.
const MAX_FIRING_ROUNDS: usize = 256;

/// Time for which a schedule that cannot be parsed is postponed.
const SCHEDULE_POSTPONEMENT: Millis = Millis(60_000);

/// Fires due schedules after each `round` of maintenance that this worker does, until `stop` is
/// cancelled.
///
/// It runs in its own loop: submitting is the only maintenance duty that a full Redis refuses, and
/// the other duties must continue in that case.
pub(crate) async fn run_schedules(queue: Queue, round: Arc<Notify>, stop: CancellationToken) {
    let mut backoff = LoopBackoff::new("schedules");
    while stop.run_until_cancelled(round.notified()).await.is_some() {
        match fire_due(&queue).await {
            Ok(fired) => {
                backoff.reset();
                metrics::jobs_scheduled(fired);
            }
            Err(error) => backoff.record_failure(&error, &stop).await,
        }
    }
}

/// Submits the job of every due schedule. Returns the number of submitted jobs.
///
/// # Errors
/// If Redis cannot be reached. Jobs that are already submitted stay submitted.
pub async fn fire_due(queue: &Queue) -> Result<u64, QueueError> {
    let mut fired = 0;
    for _ in 0..MAX_FIRING_ROUNDS {
        let due = queue.due_schedules().await?;
        let mut again = due.more;
        for schedule in &due.schedules {
            let Some((at, next, left_out)) = plan_firing(schedule, due.now) else {
                tracing::warn!(
                    schedule = %schedule.name,
                    "schedule cannot be parsed; postponed by a minute for other workers"
                );
                queue
                    .postpone_schedule(schedule, SCHEDULE_POSTPONEMENT)
                    .await?;
                continue;
            };
            let firing = Firing {
                schedule,
                at,
                next,
                left_out,
            };
            if queue.fire_schedule(&firing).await? == FireReply::Fired {
                fired += 1;
                again |= next.is_some_and(|next| next <= due.now);
            }
        }
        if !again {
            break;
        }
    }
    Ok(fired)
}

/// Plans the firing of a due schedule at `now`: the time that names its job, the time after it, and
/// the number of earlier times that are skipped. `None` if the schedule cannot be parsed.
fn plan_firing(
    schedule: &DueSchedule,
    now: UnixMillis,
) -> Option<(UnixMillis, Option<UnixMillis>, u64)> {
    let cron = CronSchedule::parse(&schedule.cron, &schedule.zone).ok()?;
    let missed: Missed = schedule.missed.parse().ok()?;
    let passed = cron.between(schedule.due, now, MAX_COUNTED_FIRINGS);
    let left_out = match missed {
        Missed::Skip => passed.len().saturating_sub(1),
        Missed::All => passed.len().saturating_sub(CAUGHT_UP_FIRINGS_MAX),
    };
    // `passed` is empty if the rules of the time zone changed after `schedule.due` was computed.
    // That firing was announced, so it is made nevertheless.
    let at = passed.get(left_out).copied().unwrap_or(schedule.due);
    let left_out = u64::try_from(left_out).unwrap_or(u64::MAX);
    Some((at, cron.next_after(at), left_out))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000;

    fn due(cron: &str, missed: &str) -> DueSchedule {
        DueSchedule {
            name: "n".parse().unwrap(),
            revision: "r".to_owned(),
            due: UnixMillis(MINUTE),
            cron: cron.to_owned(),
            zone: "UTC".to_owned(),
            missed: missed.to_owned(),
        }
    }

    #[test]
    fn missed_firings_are_made_up_for_by_the_policy() {
        let many = 150 * MINUTE;
        for (case, missed, now, at, left_out) in [
            ("on time", "skip", MINUTE + 300, 1, 0),
            ("late", "skip", 5 * MINUTE + 1, 5, 4),
            ("late, all", "all", 5 * MINUTE + 1, 1, 0),
            ("very late, all", "all", many, 51, 50),
        ] {
            let planned = plan_firing(&due("* * * * *", missed), UnixMillis(now));
            let at = UnixMillis(at * MINUTE);
            let next = Some(UnixMillis(at.0 + MINUTE));
            assert_eq!(planned, Some((at, next, left_out)), "case {case}");
        }
    }

    #[test]
    fn a_time_that_is_no_longer_one_is_kept_once() {
        let mut changed = due("0 0 * * *", "skip");
        changed.due = UnixMillis(7 * MINUTE);
        let day = UnixMillis(24 * 60 * MINUTE);
        let planned = plan_firing(&changed, UnixMillis(8 * MINUTE));
        assert_eq!(planned, Some((UnixMillis(7 * MINUTE), Some(day), 0)));
    }

    #[test]
    fn what_does_not_read_is_not_planned() {
        assert_eq!(plan_firing(&due("bad", "skip"), UnixMillis(MINUTE)), None);
        assert_eq!(
            plan_firing(&due("* * * * *", "some"), UnixMillis(MINUTE)),
            None
        );
    }
}
