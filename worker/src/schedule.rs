//! Firing schedules: which of the times that have come get a job, and when the next one is.
//!
//! The worker that does a round of the namespace's upkeep does this too; should two do it at once,
//! the queue lets one of them through for each firing. It refuses to guess at a schedule it cannot
//! read: that one is left for a while, for a worker of another version.

use std::sync::Arc;

use sandhog_common::queue::{DueSchedule, FireReply, Firing, Queue, QueueError};
use sandhog_common::schedule::{MOST_CAUGHT_UP, Missed};
use sandhog_common::timetable::Timetable;
use sandhog_common::units::{Millis, UnixMillis};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::metrics;
use crate::supervise::Patience;

/// How many missed firings are looked for; above that the count of those left out falls short.
const MOST_LOOKED_AT: usize = 1000;

/// How many rounds one call makes at most; the next call goes on.
const MOST_ROUNDS: usize = 256;

/// How long a schedule that does not read is left alone.
const POSTPONED: Millis = Millis(60_000);

/// Fires what is due after each `round` of upkeep that is this worker's, until `stop`.
///
/// It has a loop of its own: submitting is the one duty beside the queue that a full Redis refuses, and the others must
/// go on then.
pub(crate) async fn keep(queue: Queue, round: Arc<Notify>, stop: CancellationToken) {
    let mut patience = Patience::new("schedules");
    while stop.run_until_cancelled(round.notified()).await.is_some() {
        match fire_due(&queue).await {
            Ok(fired) => {
                patience.restore();
                metrics::scheduled(fired);
            }
            Err(error) => patience.wear(&error, &stop).await,
        }
    }
}

/// Submits the job of every schedule whose time has come. Answers how many were submitted.
///
/// # Errors
/// When Redis cannot be reached; what was submitted stays so.
pub async fn fire_due(queue: &Queue) -> Result<u64, QueueError> {
    let mut fired = 0;
    for _ in 0..MOST_ROUNDS {
        let due = queue.due_schedules().await?;
        let mut again = due.more;
        for schedule in &due.schedules {
            let Some((at, next, left_out)) = plan(schedule, due.now) else {
                tracing::warn!(schedule = %schedule.name, "schedule does not read; left to other workers for a minute");
                queue.postpone_schedule(schedule, POSTPONED).await?;
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

/// The firing to make at `now` for a schedule that has been due since some time: the time that names its job, the time
/// after it, and how many before it are left out. None when the schedule does not read.
fn plan(schedule: &DueSchedule, now: UnixMillis) -> Option<(UnixMillis, Option<UnixMillis>, u64)> {
    let timetable = Timetable::parse(&schedule.cron, &schedule.zone).ok()?;
    let missed: Missed = schedule.missed.parse().ok()?;
    let passed = timetable.between(schedule.due, now, MOST_LOOKED_AT);
    let left_out = match missed {
        Missed::Skip => passed.len().saturating_sub(1),
        Missed::All => passed.len().saturating_sub(MOST_CAUGHT_UP),
    };
    // Nothing has passed when the zone's rules have changed since the time was reckoned: it was promised then.
    let at = passed.get(left_out).copied().unwrap_or(schedule.due);
    let left_out = u64::try_from(left_out).unwrap_or(u64::MAX);
    Some((at, timetable.next_after(at), left_out))
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
            let planned = plan(&due("* * * * *", missed), UnixMillis(now));
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
        let planned = plan(&changed, UnixMillis(8 * MINUTE));
        assert_eq!(planned, Some((UnixMillis(7 * MINUTE), Some(day), 0)));
    }

    #[test]
    fn what_does_not_read_is_not_planned() {
        assert_eq!(plan(&due("bad", "skip"), UnixMillis(MINUTE)), None);
        assert_eq!(plan(&due("* * * * *", "some"), UnixMillis(MINUTE)), None);
    }
}
