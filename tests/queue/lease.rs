//! Leases: renewed, lost with a worker, and given back by a worker that stops.

use sandhog_core::outcome::Outcome;
use sandhog_core::submission::Routing;
use sandhog_core::units::Millis;
use sandhog_core::wire::{self, Encoding};
use sandhog_queue::{
    Binding, FinishReply, HeartbeatReply, JobState, MaintenanceReport, Settlement,
};

use crate::fixture::{LEASE, QueueFixture, success, worker};

#[tokio::test]
async fn a_beat_renews_a_lease() {
    let fixture = QueueFixture::shared("renew").await;
    fixture.ready(&Routing::default()).await;
    let one = worker("one");
    let lease = fixture.bound(&one).await.lease;
    fixture.age(&lease).await;
    let beat = fixture
        .queue
        .heartbeat(&one, std::slice::from_ref(&lease))
        .await;
    assert_eq!(beat.unwrap(), [HeartbeatReply::Held]);
    let report = fixture.queue.maintain_fully(LEASE, 3).await.unwrap();
    assert_eq!(report, MaintenanceReport::default(), "no lease is idle");
}

#[tokio::test]
async fn binding_starts_the_lease_anew() {
    let fixture = QueueFixture::shared("bind-renews").await;
    fixture.ready(&Routing::default()).await;
    let slow = worker("slow");
    let ticket = fixture.ticket(&slow).await.unwrap();
    fixture
        .age_ticket(&ticket.class, ticket.token.as_str(), &slow)
        .await;
    let bound = fixture.queue.bind(&ticket, &slow).await.unwrap();
    assert!(matches!(bound, Binding::Bound(_)));
    assert!(
        fixture
            .queue
            .maintain_fully(LEASE, 3)
            .await
            .unwrap()
            .is_idle()
    );
}

#[tokio::test]
async fn a_beat_mends_a_pending_list_that_was_lost() {
    let fixture = QueueFixture::shared("beat-mends").await;
    fixture.ready(&Routing::default()).await;
    let one = worker("one");
    let lease = fixture.bound(&one).await.lease;
    let key = fixture.queue.keys().tickets(&lease.class);
    let _destroyed: i64 = fixture.plain(&["XGROUP", "DESTROY", &key, "workers"]).await;
    let _made: String = fixture
        .plain(&["XGROUP", "CREATE", &key, "workers", "0"])
        .await;
    let beat = fixture
        .queue
        .heartbeat(&one, std::slice::from_ref(&lease))
        .await
        .unwrap();
    assert_eq!(beat, [HeartbeatReply::Held]);
    fixture.age(&lease).await;
    let report = fixture.queue.maintain_fully(LEASE, 3).await.unwrap();
    assert_eq!(report.reaped, 1, "the lease can lapse again");
}

#[tokio::test]
async fn many_leases_are_answered_in_order() {
    let fixture = QueueFixture::shared("many-leases").await;
    let one = worker("one");
    let mut leases = Vec::new();
    for _ in 0..70 {
        fixture.submit(&Routing::default()).await;
    }
    fixture.admit().await;
    for _ in 0..70 {
        leases.push(fixture.bound(&one).await.lease);
    }
    fixture.queue.cancel_now(&leases[3].id).await.unwrap();
    let _settled = fixture
        .queue
        .finish(&leases[66], success(&leases[66].id))
        .await
        .unwrap();
    let beat = fixture.queue.heartbeat(&one, &leases).await.unwrap();
    let mut want = vec![HeartbeatReply::Held; 70];
    want[3] = HeartbeatReply::Cancel;
    want[66] = HeartbeatReply::Settled;
    assert_eq!(beat, want);
    assert_eq!(fixture.queue.heartbeat(&one, &[]).await.unwrap(), []);
}

#[tokio::test]
async fn after_an_outage_those_who_live_have_time_to_say_so() {
    let fixture = QueueFixture::shared("lease-outage").await;
    let (alive, dead) = (worker("alive"), worker("dead"));
    fixture.ready(&Routing::default()).await;
    fixture.ready(&Routing::default()).await;
    let kept = fixture.bound(&alive).await.lease;
    let lost = fixture.bound(&dead).await.lease;
    assert!(
        fixture
            .queue
            .maintain_fully(LEASE, 3)
            .await
            .unwrap()
            .is_idle()
    );

    // Redis was down for longer than a lease, so maintenance did not run and no worker could renew.
    let upkeep = format!("{}upkeep", fixture.queue.keys().prefix());
    let noted: String = fixture.plain(&["GET", &upkeep]).await;
    let now: u64 = noted.split(' ').next().unwrap().parse().unwrap();
    let last = format!("{} 0", now - LEASE.0 - 1);
    let _set: String = fixture.plain(&["SET", &upkeep, &last]).await;
    fixture.age(&kept).await;
    fixture.age(&lost).await;
    for who in ["the first worker", "the second worker"] {
        let report = fixture.queue.maintain_fully(LEASE, 3).await.unwrap();
        assert_eq!(report.reaped, 0, "{who}");
        assert!(
            report.reclaim_pause > Millis(LEASE.0 / 2),
            "{who}: {report:?}"
        );
    }
    let beat = fixture
        .queue
        .heartbeat(&alive, std::slice::from_ref(&kept))
        .await;
    assert_eq!(beat.unwrap(), [HeartbeatReply::Held]);

    // One lease later.
    let noted: String = fixture.plain(&["GET", &upkeep]).await;
    let now = noted.split(' ').next().unwrap();
    let over = format!("{now} {now}");
    let _set: String = fixture.plain(&["SET", &upkeep, &over]).await;
    let report = fixture.queue.maintain_fully(LEASE, 3).await.unwrap();
    assert_eq!((report.reaped, report.reclaim_pause), (1, Millis(0)));
    assert_eq!(
        fixture.record(&lost.id).await.lost,
        1,
        "only the lease of the dead worker was lost"
    );
    assert_eq!(fixture.record(&kept.id).await.lost, 0);
    let beat = fixture.queue.heartbeat(&alive, &[kept]).await;
    assert_eq!(beat.unwrap(), [HeartbeatReply::Held]);
}

#[tokio::test]
async fn a_job_that_keeps_losing_its_worker_is_given_up() {
    let fixture = QueueFixture::shared("poison").await;
    for encoding in [Encoding::Json, Encoding::MessagePack] {
        let payload = wire::encode(&crate::fixture::job(), encoding);
        let id = fixture
            .queue
            .submit(&Routing::default(), &payload)
            .await
            .unwrap();
        fixture.admit().await;
        for lost in 0..3 {
            let job = fixture.bound(&worker("doomed")).await;
            assert_eq!((job.attempts, job.lost), (lost + 1, lost));
            fixture.age(&job.lease).await;
            let report = fixture.queue.maintain_fully(LEASE, 3).await.unwrap();
            let given_up = u64::from(lost == 2);
            assert_eq!(
                (report.reaped, report.given_up),
                (1 - given_up, given_up),
                "loss {lost}"
            );
        }
        let record = fixture.record(&id).await;
        assert_eq!(record.state, JobState::Dead);
        assert_eq!((record.attempts, record.lost), (3, 3));
        let given_up = "3 attempts were lost with their workers";
        assert_eq!(record.error.as_deref(), Some(given_up));
        let bytes = fixture.queue.result(&id).await.unwrap().unwrap();
        assert_eq!(wire::sniff(&bytes).unwrap(), encoding);
        let result = fixture.result(&id).await;
        assert_eq!(result.outcome, Outcome::Lost);
        assert_eq!(result.attempts, 3);
        assert_eq!(result.worker, Some(worker("doomed")));
        let error = result.error.unwrap();
        assert_eq!(error.code, "attempts_lost");
        assert_eq!(error.message, given_up);
        assert_eq!(fixture.claim(&worker("two")).await, None);
    }
    let mut fixture = fixture;
    let dead = fixture.space.stream_now(&fixture.queue.keys().dead());
    assert_eq!(dead.len(), 2);
    assert_eq!(dead[0].text("reason"), "attempts_lost");
    assert_eq!(fixture.counter("lost").await, 6);
    assert_eq!(fixture.counter("dead").await, 2);
}

#[tokio::test]
async fn a_job_given_back_goes_first_and_loses_no_attempt() {
    let fixture = QueueFixture::shared("give-back").await;
    let first = fixture.ready(&Routing::default()).await;
    let second = fixture.ready(&Routing::default()).await;
    let job = fixture.bound(&worker("stopping")).await;
    assert_eq!(job.lease.id, first);
    let reply = fixture
        .queue
        .finish(&job.lease, Settlement::GiveBack)
        .await
        .unwrap();
    assert_eq!(reply, FinishReply::Settled);
    let reply = fixture
        .queue
        .finish(&job.lease, Settlement::GiveBack)
        .await
        .unwrap();
    assert_eq!(reply, FinishReply::Settled, "repeating changes nothing");
    let again = fixture.bound(&worker("two")).await;
    assert_eq!(again.lease.id, first);
    assert_eq!((again.attempts, again.lost), (1, 0));
    assert_eq!(fixture.bound(&worker("two")).await.lease.id, second);
    assert_eq!(fixture.claim(&worker("two")).await, None);
}

#[tokio::test]
async fn a_ticket_whose_worker_died_before_binding_is_issued_again() {
    let fixture = QueueFixture::shared("claimed").await;
    let id = fixture.ready(&Routing::default()).await;
    let dead = worker("dead");
    let ticket = fixture.ticket(&dead).await.unwrap();
    fixture
        .age_ticket(&ticket.class, ticket.token.as_str(), &dead)
        .await;
    let report = fixture.queue.maintain_fully(LEASE, 3).await.unwrap();
    assert_eq!((report.reissued, report.reaped), (1, 0));
    assert_eq!(report.restored, 0, "one replacement ticket is enough");
    let late = fixture.queue.bind(&ticket, &dead).await.unwrap();
    assert_eq!(
        late,
        Binding::Nothing,
        "the slow worker's ticket was replaced"
    );
    let job = fixture.bound(&worker("two")).await;
    assert_eq!(job.lease.id, id);
    assert_eq!(job.lost, 0, "an attempt that never began was not lost");
}

#[tokio::test]
async fn a_consumer_with_more_leases_than_one_call_takes_is_not_removed_with_them() {
    // Removing a consumer drops its pending entries, and no worker would ever take those jobs back.
    let fixture = QueueFixture::shared("sweep-many").await;
    let dead = worker("dead");
    let jobs = vec![(Routing::default(), crate::fixture::payload()); 70];
    fixture.queue.submit_many(&jobs).await.unwrap();
    fixture.admit().await;
    for _ in 0..70 {
        fixture.bound(&dead).await;
    }
    assert_eq!(
        fixture
            .queue
            .maintain_fully(Millis(0), 9)
            .await
            .unwrap()
            .reaped,
        70
    );
    for _ in 0..70 {
        fixture.bound(&worker("two")).await;
    }
}

#[tokio::test]
async fn what_dead_workers_leave_is_swept_up_but_never_a_lease() {
    let fixture = QueueFixture::shared("sweep").await;
    fixture.ready(&Routing::default()).await;
    fixture.ready(&Routing::default()).await;
    let (idle, busy) = (worker("idle"), worker("busy"));
    assert!(fixture.claim(&idle).await.is_some());
    let lease = fixture.bound(&busy).await.lease;
    let group = fixture.queue.keys().tickets(&lease.class);
    // With a lease of zero, every lease is taken back, and every consumer without a live worker
    // counts as silent for too long.
    let report = fixture.queue.maintain_fully(Millis(0), 9).await.unwrap();
    assert_eq!(report.reaped, 2);
    assert_eq!(report.consumers_removed, 3, "two workers and the admitter");
    let consumers: Vec<redis::Value> = fixture
        .plain(&["XINFO", "CONSUMERS", &group, "workers"])
        .await;
    assert_eq!(consumers.len(), 0);
    assert_eq!(fixture.queue.snapshot().await.unwrap().classes[0].ready, 2);

    let lease = fixture.bound(&busy).await.lease;
    let report = fixture.queue.maintain_fully(LEASE, 9).await.unwrap();
    assert_eq!(report.consumers_removed, 0, "a consumer with a lease stays");
    let beat = fixture.queue.heartbeat(&busy, &[lease]).await.unwrap();
    assert_eq!(beat, [HeartbeatReply::Held]);
}
