//! Leases: renewed, lost with a worker, and given back by a worker that stops.

use sandhog_common::outcome::Outcome;
use sandhog_common::queue::{BeatReply, Binding, FinishReply, JobState, Settlement, TickReport};
use sandhog_common::submission::Routing;
use sandhog_common::units::Millis;
use sandhog_common::wire::{self, Encoding};

use crate::desk::{Desk, LEASE, success, worker};

#[tokio::test]
async fn a_beat_renews_a_lease() {
    let desk = Desk::shared("renew").await;
    desk.ready(&Routing::default()).await;
    let one = worker("one");
    let lease = desk.bound(&one).await.lease;
    desk.age(&lease).await;
    let beat = desk.queue.beat(&one, std::slice::from_ref(&lease)).await;
    assert_eq!(beat.unwrap(), [BeatReply::Held]);
    let report = desk.queue.tick(LEASE, 3).await.unwrap();
    assert_eq!(report, TickReport::default(), "no lease is idle");
}

#[tokio::test]
async fn binding_starts_the_lease_anew() {
    let desk = Desk::shared("bind-renews").await;
    desk.ready(&Routing::default()).await;
    let slow = worker("slow");
    let ticket = desk.ticket(&slow).await.unwrap();
    desk.age_ticket(&ticket.class, ticket.token.as_str(), &slow)
        .await;
    let bound = desk.queue.bind(&ticket, &slow).await.unwrap();
    assert!(matches!(bound, Binding::Bound(_)));
    assert!(desk.queue.tick(LEASE, 3).await.unwrap().is_idle());
}

#[tokio::test]
async fn a_beat_mends_a_pending_list_that_was_lost() {
    let desk = Desk::shared("beat-mends").await;
    desk.ready(&Routing::default()).await;
    let one = worker("one");
    let lease = desk.bound(&one).await.lease;
    let key = desk.queue.keys().tickets(&lease.class);
    let _destroyed: i64 = desk.plain(&["XGROUP", "DESTROY", &key, "workers"]).await;
    let _made: String = desk
        .plain(&["XGROUP", "CREATE", &key, "workers", "0"])
        .await;
    let beat = desk
        .queue
        .beat(&one, std::slice::from_ref(&lease))
        .await
        .unwrap();
    assert_eq!(beat, [BeatReply::Held]);
    desk.age(&lease).await;
    let report = desk.queue.tick(LEASE, 3).await.unwrap();
    assert_eq!(report.reaped, 1, "the lease can lapse again");
}

#[tokio::test]
async fn many_leases_are_answered_in_order() {
    let desk = Desk::shared("many-leases").await;
    let one = worker("one");
    let mut leases = Vec::new();
    for _ in 0..70 {
        desk.submit(&Routing::default()).await;
    }
    desk.admit().await;
    for _ in 0..70 {
        leases.push(desk.bound(&one).await.lease);
    }
    desk.queue.cancel_now(&leases[3].id).await.unwrap();
    let _settled = desk
        .queue
        .finish(&leases[66], success(&leases[66].id))
        .await
        .unwrap();
    let beat = desk.queue.beat(&one, &leases).await.unwrap();
    let mut want = vec![BeatReply::Held; 70];
    want[3] = BeatReply::Cancel;
    want[66] = BeatReply::Settled;
    assert_eq!(beat, want);
    assert_eq!(desk.queue.beat(&one, &[]).await.unwrap(), []);
}

#[tokio::test]
async fn after_an_outage_those_who_live_have_time_to_say_so() {
    let desk = Desk::shared("lease-outage").await;
    let (alive, dead) = (worker("alive"), worker("dead"));
    desk.ready(&Routing::default()).await;
    desk.ready(&Routing::default()).await;
    let kept = desk.bound(&alive).await.lease;
    let lost = desk.bound(&dead).await.lease;
    assert!(desk.queue.tick(LEASE, 3).await.unwrap().is_idle());

    // Redis was down for longer than a lease, so maintenance did not run and no worker could renew.
    let upkeep = format!("{}upkeep", desk.queue.keys().prefix());
    let noted: String = desk.plain(&["GET", &upkeep]).await;
    let now: u64 = noted.split(' ').next().unwrap().parse().unwrap();
    let last = format!("{} 0", now - LEASE.0 - 1);
    let _set: String = desk.plain(&["SET", &upkeep, &last]).await;
    desk.age(&kept).await;
    desk.age(&lost).await;
    for who in ["the first worker", "the second worker"] {
        let report = desk.queue.tick(LEASE, 3).await.unwrap();
        assert_eq!(report.reaped, 0, "{who}");
        assert!(report.patient > Millis(LEASE.0 / 2), "{who}: {report:?}");
    }
    let beat = desk.queue.beat(&alive, std::slice::from_ref(&kept)).await;
    assert_eq!(beat.unwrap(), [BeatReply::Held]);

    // One lease later.
    let noted: String = desk.plain(&["GET", &upkeep]).await;
    let now = noted.split(' ').next().unwrap();
    let over = format!("{now} {now}");
    let _set: String = desk.plain(&["SET", &upkeep, &over]).await;
    let report = desk.queue.tick(LEASE, 3).await.unwrap();
    assert_eq!((report.reaped, report.patient), (1, Millis(0)));
    assert_eq!(
        desk.record(&lost.id).await.lost,
        1,
        "only the lease of the dead worker was lost"
    );
    assert_eq!(desk.record(&kept.id).await.lost, 0);
    let beat = desk.queue.beat(&alive, &[kept]).await;
    assert_eq!(beat.unwrap(), [BeatReply::Held]);
}

#[tokio::test]
async fn a_job_that_keeps_losing_its_worker_is_given_up() {
    let desk = Desk::shared("poison").await;
    for encoding in [Encoding::Json, Encoding::MessagePack] {
        let payload = wire::encode(&crate::desk::job(), encoding);
        let id = desk
            .queue
            .submit(&Routing::default(), &payload)
            .await
            .unwrap();
        desk.admit().await;
        for lost in 0..3 {
            let job = desk.bound(&worker("doomed")).await;
            assert_eq!((job.attempts, job.lost), (lost + 1, lost));
            desk.age(&job.lease).await;
            let report = desk.queue.tick(LEASE, 3).await.unwrap();
            let given_up = u64::from(lost == 2);
            assert_eq!(
                (report.reaped, report.given_up),
                (1 - given_up, given_up),
                "loss {lost}"
            );
        }
        let record = desk.record(&id).await;
        assert_eq!(record.state, JobState::Dead);
        assert_eq!((record.attempts, record.lost), (3, 3));
        let given_up = "3 attempts were lost with their workers";
        assert_eq!(record.error.as_deref(), Some(given_up));
        let bytes = desk.queue.result(&id).await.unwrap().unwrap();
        assert_eq!(wire::sniff(&bytes).unwrap(), encoding);
        let result = desk.result(&id).await;
        assert_eq!(result.outcome, Outcome::Lost);
        assert_eq!(result.attempts, 3);
        assert_eq!(result.worker, Some(worker("doomed")));
        let error = result.error.unwrap();
        assert_eq!(error.code, "attempts_lost");
        assert_eq!(error.message, given_up);
        assert_eq!(desk.claim(&worker("two")).await, None);
    }
    let mut desk = desk;
    let dead = desk.space.stream_now(&desk.queue.keys().dead());
    assert_eq!(dead.len(), 2);
    assert_eq!(dead[0].text("reason"), "attempts_lost");
    assert_eq!(desk.counter("lost").await, 6);
    assert_eq!(desk.counter("dead").await, 2);
}

#[tokio::test]
async fn a_job_given_back_goes_first_and_loses_no_attempt() {
    let desk = Desk::shared("give-back").await;
    let first = desk.ready(&Routing::default()).await;
    let second = desk.ready(&Routing::default()).await;
    let job = desk.bound(&worker("stopping")).await;
    assert_eq!(job.lease.id, first);
    let reply = desk
        .queue
        .finish(&job.lease, Settlement::GiveBack)
        .await
        .unwrap();
    assert_eq!(reply, FinishReply::Settled);
    let reply = desk
        .queue
        .finish(&job.lease, Settlement::GiveBack)
        .await
        .unwrap();
    assert_eq!(reply, FinishReply::Settled, "repeating changes nothing");
    let again = desk.bound(&worker("two")).await;
    assert_eq!(again.lease.id, first);
    assert_eq!((again.attempts, again.lost), (1, 0));
    assert_eq!(desk.bound(&worker("two")).await.lease.id, second);
    assert_eq!(desk.claim(&worker("two")).await, None);
}

#[tokio::test]
async fn a_ticket_whose_worker_died_before_binding_is_issued_again() {
    let desk = Desk::shared("claimed").await;
    let id = desk.ready(&Routing::default()).await;
    let dead = worker("dead");
    let ticket = desk.ticket(&dead).await.unwrap();
    desk.age_ticket(&ticket.class, ticket.token.as_str(), &dead)
        .await;
    let report = desk.queue.tick(LEASE, 3).await.unwrap();
    assert_eq!((report.reissued, report.reaped), (1, 0));
    assert_eq!(report.mended, 0, "one replacement ticket is enough");
    let late = desk.queue.bind(&ticket, &dead).await.unwrap();
    assert_eq!(
        late,
        Binding::Nothing,
        "the slow worker's ticket was replaced"
    );
    let job = desk.bound(&worker("two")).await;
    assert_eq!(job.lease.id, id);
    assert_eq!(job.lost, 0, "an attempt that never began was not lost");
}

#[tokio::test]
async fn a_consumer_with_more_leases_than_one_call_takes_is_not_removed_with_them() {
    // Removing a consumer drops its pending entries, and no worker would ever take those jobs back.
    let desk = Desk::shared("sweep-many").await;
    let dead = worker("dead");
    let jobs = vec![(Routing::default(), crate::desk::payload()); 70];
    desk.queue.submit_many(&jobs).await.unwrap();
    desk.admit().await;
    for _ in 0..70 {
        desk.bound(&dead).await;
    }
    assert_eq!(desk.queue.tick(Millis(0), 9).await.unwrap().reaped, 70);
    for _ in 0..70 {
        desk.bound(&worker("two")).await;
    }
}

#[tokio::test]
async fn what_dead_workers_leave_is_swept_up_but_never_a_lease() {
    let desk = Desk::shared("sweep").await;
    desk.ready(&Routing::default()).await;
    desk.ready(&Routing::default()).await;
    let (idle, busy) = (worker("idle"), worker("busy"));
    assert!(desk.claim(&idle).await.is_some());
    let lease = desk.bound(&busy).await.lease;
    let group = desk.queue.keys().tickets(&lease.class);
    // With a lease of zero, every lease is taken back, and every consumer without a live worker
    // counts as silent for too long.
    let report = desk.queue.tick(Millis(0), 9).await.unwrap();
    assert_eq!(report.reaped, 2);
    assert_eq!(report.consumers_removed, 3, "two workers and the admitter");
    let consumers: Vec<redis::Value> = desk.plain(&["XINFO", "CONSUMERS", &group, "workers"]).await;
    assert_eq!(consumers.len(), 0);
    assert_eq!(desk.queue.snapshot().await.unwrap().classes[0].ready, 2);

    let lease = desk.bound(&busy).await.lease;
    let report = desk.queue.tick(LEASE, 9).await.unwrap();
    assert_eq!(report.consumers_removed, 0, "a consumer with a lease stays");
    let beat = desk.queue.beat(&busy, &[lease]).await.unwrap();
    assert_eq!(beat, [BeatReply::Held]);
}
