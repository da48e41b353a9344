//! Keys that the queue leaves in Redis: every key expires or is documented as permanent.

use sandhog_core::outcome::Outcome;
use sandhog_core::submission::{Routing, Start};
use sandhog_core::units::Millis;
use sandhog_queue::{CancelReply, LogStream, RetryBudget, Settlement};

use crate::fixture::{LEASE, QueueFixture, payload, success, worker};

#[tokio::test]
async fn after_a_batch_only_records_with_an_end_are_left() {
    let fixture = QueueFixture::shared("footprint").await;
    let one = worker("one");
    let tenants = ["a", "b", "default"];
    let mut jobs = Vec::new();
    for n in 0..60 {
        let routing = Routing {
            tenant: tenants[n % 3].parse().unwrap(),
            reply: (n % 7 == 0).then(|| "batch".parse().unwrap()),
            ttl: (n % 5 == 0).then_some(Millis(86_400_000)),
            start: if n % 10 == 0 {
                Start::After(Millis(3_600_000))
            } else {
                Start::Now
            },
            ..Routing::default()
        };
        jobs.push((routing, payload()));
    }
    let ids = fixture.queue.submit_many(&jobs).await.unwrap();
    fixture.admit().await;
    for id in ids.iter().step_by(6) {
        assert_eq!(
            fixture.queue.cancel_now(id).await.unwrap(),
            CancelReply::Cancelled
        );
    }
    let delayed = fixture.queue.keys().delayed();
    for id in &ids {
        let _moved: i64 = fixture
            .plain(&["ZADD", &delayed, "XX", "1", id.as_str()])
            .await;
    }
    fixture.queue.maintain_fully(LEASE, 3).await.unwrap();
    let mut round = 0;
    while let Some(job) = fixture.claim(&one).await {
        round += 1;
        let lease = job.lease;
        fixture
            .queue
            .log(&lease, LogStream::Stdout, b"some output\n")
            .await
            .unwrap();
        let settlement = match round % 9 {
            0 if job.attempts == 1 => Settlement::Retry {
                after: Millis(0),
                why: "once more".into(),
                counts_as: RetryBudget::Attempt,
            },
            1 => Settlement::DeadLetter {
                result: payload(),
                outcome: Outcome::Lost,
                reason: "max_attempts".into(),
                error: "enough".into(),
            },
            _ => success(&lease.id),
        };
        if round % 11 == 0 && job.attempts == 1 {
            fixture.age(&lease).await;
            fixture.queue.maintain_fully(LEASE, 3).await.unwrap();
        } else {
            let _settled = fixture.queue.finish(&lease, settlement).await.unwrap();
        }
    }
    fixture.queue.maintain_fully(LEASE, 3).await.unwrap();

    let lasting = [
        "bringers",
        "brought",
        "classes",
        "control",
        "dead",
        "events",
        "jobs",
        "stats",
        "tickets:cpu",
        "upkeep",
    ];
    let mut ended = [0; 3];
    for key in fixture.keys().await {
        let whole = format!("{}{key}", fixture.queue.keys().prefix());
        let life: i64 = fixture.plain(&["PTTL", &whole]).await;
        if lasting.contains(&key.as_str()) {
            assert_eq!(life, -1, "{key} does not expire");
            continue;
        }
        assert!(life > 0, "{key} expires");
        match key.split(':').next().unwrap() {
            "job" => ended[0] += 1,
            "result" => ended[1] += 1,
            "log" => ended[2] += 1,
            "reply" | "debt" | "letters" => {}
            other => panic!("{other} is left behind: {key}"),
        }
    }
    assert_eq!(ended[..2], [60, 60]);
    for stream in [
        fixture.queue.keys().jobs(),
        fixture.queue.keys().tickets(&"cpu".parse().unwrap()),
    ] {
        let entries: u64 = fixture.plain(&["XLEN", &stream]).await;
        assert_eq!(entries, 0, "{stream} is empty");
    }
    let snapshot = fixture.queue.snapshot().await.unwrap();
    let finished: u64 = snapshot
        .counters
        .iter()
        .filter(|(name, _)| name.starts_with("finished_"))
        .map(|(_, count)| count)
        .sum();
    assert_eq!(finished, 60, "each ended once: {:?}", snapshot.counters);
    assert_eq!(
        (snapshot.classes[0].ready, snapshot.classes[0].running),
        (0, 0)
    );
    for id in &ids {
        let kept: bool = fixture
            .plain(&["HEXISTS", &fixture.queue.keys().job(id), "payload"])
            .await;
        let dead = fixture.state(id).await == sandhog_queue::JobState::Dead;
        assert_eq!(kept, dead, "only a dead letter keeps its payload");
    }
}

#[tokio::test]
async fn a_result_kept_for_no_time_still_reaches_who_waits_for_it() {
    let fixture = QueueFixture::shared("keep-nothing").await;
    let routing = Routing {
        keep: Millis(0),
        ..Routing::default()
    };
    let id = fixture.ready(&routing).await;
    let mut waiter = fixture.queue.result_waiter().await.unwrap();
    let waiting = tokio::spawn({
        let id = id.clone();
        async move { waiter.wait(&id, crate::fixture::WAIT_TIMEOUT).await }
    });
    let job = fixture.bound(&worker("one")).await;
    let _settled = fixture
        .queue
        .finish(&job.lease, success(&id))
        .await
        .unwrap();
    assert!(waiting.await.unwrap().unwrap().is_some());
    let life: i64 = fixture
        .plain(&["PTTL", &fixture.queue.keys().job(&id)])
        .await;
    assert!(life <= 1000, "{life}");
}
