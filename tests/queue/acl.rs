//! The published permissions of each role: each role has exactly the rights that it needs.

use std::time::Duration;

use redis::Value;
use sandhog_core::class::Class;
use sandhog_core::outcome::Outcome;
use sandhog_core::submission::{Intake, Routing};
use sandhog_queue::{Admission, AdmitReply, Binding, CancelReply, HeartbeatReply, Queue};
use sandhog_testkit::environment;
use sandhog_testkit::page::{PASSWORD, permissions};
use sandhog_testkit::private_redis::PrivateRedis;

use crate::fixture::{CAP, LEASE, QueueFixture, WAIT_TIMEOUT, payload, settings, success, worker};
use crate::in_process_worker::{AttemptCounter, start_worker, worker_settings};

impl QueueFixture {
    /// Returns a queue connected as one of the page's users, with that user's published
    /// permissions.
    async fn user(&self, redis: &PrivateRedis, name: &str) -> Queue {
        for line in permissions(&self.space) {
            let words: Vec<&str> = line.iter().map(String::as_str).collect();
            let _set: String = self.plain(&words).await;
        }
        let url = redis.url_of(name, PASSWORD);
        Queue::connect(&settings(&url), self.space.namespace())
            .await
            .unwrap()
    }

    /// Returns the commands and keys that Redis has denied to any user.
    async fn refused(&self) -> Vec<String> {
        let log: Vec<Vec<Value>> = self.plain(&["ACL", "LOG"]).await;
        let text = |value: &Value| redis::from_redis_value::<String>(value.clone()).unwrap();
        log.iter()
            .map(|entry| {
                entry
                    .chunks_exact(2)
                    .find(|pair| text(&pair[0]) == "object")
            })
            .map(|found| text(&found.expect("an entry names its object")[1]))
            .collect()
    }
}

#[tokio::test]
async fn a_producer_needs_only_xadd_on_the_intake() {
    let redis = PrivateRedis::start(&[]);
    let fixture = QueueFixture::on(&redis, "acl-producer").await;
    let producer = fixture.user(&redis, "submitter").await;
    let id = producer
        .submit(&Routing::default(), &payload())
        .await
        .unwrap();
    let many = producer
        .submit_many(&[(Routing::default(), payload())])
        .await;
    assert_eq!(many.unwrap().len(), 1);
    producer.cancel(&id).await.unwrap();
    assert_eq!(fixture.admit().await.len(), 2);
    assert_eq!(fixture.refused().await, [""; 0]);

    let error = producer.result(&id).await.unwrap_err();
    assert!(!error.is_transient());
    assert!(error.hint().is_some(), "{error}");
    assert!(producer.cancel_now(&id).await.is_err());
    assert!(producer.job(&id).await.is_err());
}

#[tokio::test]
async fn a_reader_needs_only_its_result_keys() {
    let redis = PrivateRedis::start(&[]);
    let fixture = QueueFixture::on(&redis, "acl-reader").await;
    let reader = fixture.user(&redis, "reader").await;
    let id = fixture.ready(&Routing::default()).await;
    let job = fixture.bound(&worker("one")).await;
    let mut waiter = reader.result_waiter().await.unwrap();
    let nothing = waiter.wait(&id, Duration::from_millis(1)).await.unwrap();
    assert_eq!(nothing, None);
    let _settled = fixture
        .queue
        .finish(&job.lease, success(&id))
        .await
        .unwrap();
    assert!(waiter.wait(&id, WAIT_TIMEOUT).await.unwrap().is_some());
    assert!(reader.result(&id).await.unwrap().is_some());
    // The reader works without these two commands: without `CLIENT ID` its waits cannot be ended
    // from elsewhere, and without `BLMOVE` they are short.
    assert_eq!(fixture.refused().await, ["blmove", "client|id"]);
    assert!(
        reader
            .submit(&Routing::default(), &payload())
            .await
            .is_err()
    );
    assert!(reader.job(&id).await.is_err());
}

#[tokio::test]
async fn a_worker_needs_only_its_namespace() {
    let redis = PrivateRedis::start(&[]);
    let fixture = QueueFixture::on(&redis, "acl-worker").await;
    let queue = fixture.user(&redis, "worker").await;
    queue.check().await.unwrap();
    let one = worker("one");
    let ids = [
        fixture.submit(&Routing::default()).await,
        fixture.submit(&Routing::default()).await,
    ];
    fixture.queue.cancel(&ids[1]).await.unwrap();
    let mut intake = queue.intake_reader(&one).await.unwrap();
    let (mut admissions, mut met) = (Vec::new(), Vec::new());
    for entry in intake.next(3, WAIT_TIMEOUT).await.unwrap() {
        match entry.parse(CAP).unwrap() {
            Intake::Submit(submission) => {
                let entry = entry.id;
                admissions.push(Admission::Accept { entry, submission });
            }
            Intake::Cancel(id) => {
                let reply = queue.cancel_now(&id).await.unwrap();
                assert_eq!(reply, CancelReply::Unknown, "the cancel precedes its job");
                met.push(entry.id);
            }
        }
    }
    assert_eq!((admissions.len(), met.len()), (2, 1));
    let became = queue.admit(&admissions).await.unwrap();
    assert_eq!(
        became,
        [
            AdmitReply::Admitted(ids[0].clone()),
            AdmitReply::Cancelled(ids[1].clone())
        ]
    );
    queue.done(&met).await.unwrap();
    queue.done(&met).await.unwrap();
    let waited = intake.next(3, Duration::from_millis(1)).await.unwrap();
    assert_eq!(waited, [], "the entry was deleted");
    let left: u64 = fixture.plain(&["XLEN", &fixture.queue.keys().jobs()]).await;
    assert_eq!(left, 0, "a completed request is deleted");

    queue.maintain_fully(LEASE, 3).await.unwrap();
    let mut tickets = queue.ticket_reader(&one).await.unwrap();
    let class = Class::default();
    let ticket = tickets.next(&[class], WAIT_TIMEOUT).await.unwrap().unwrap();
    let bound = queue.bind(&ticket, &one).await.unwrap();
    let Binding::Bound(job) = bound else {
        panic!("the job is there: {bound:?}");
    };
    let beat = queue
        .heartbeat(&one, std::slice::from_ref(&job.lease))
        .await;
    assert_eq!(beat.unwrap(), [HeartbeatReply::Held]);
    let _settled = queue.finish(&job.lease, success(&ids[0])).await.unwrap();
    assert_eq!(fixture.result(&ids[0]).await.outcome, Outcome::Succeeded);
    queue.snapshot().await.unwrap();
    assert_eq!(fixture.refused().await, [""; 0]);
}

#[tokio::test]
async fn a_waiter_waits_and_a_reader_forges_nothing() {
    let redis = PrivateRedis::start(&[]);
    let fixture = QueueFixture::on(&redis, "acl-waiter").await;
    let waiter = fixture.user(&redis, "waiter").await;
    let id = fixture.ready(&Routing::default()).await;
    let job = fixture.bound(&worker("one")).await;
    let mut waiting = waiter.result_waiter().await.unwrap();
    let of = id.clone();
    let waits = tokio::spawn(async move { waiting.wait(&of, WAIT_TIMEOUT).await });
    let _settled = fixture
        .queue
        .finish(&job.lease, success(&id))
        .await
        .unwrap();
    assert!(waits.await.unwrap().unwrap().is_some());
    assert_eq!(fixture.refused().await, ["client|id"]);

    // An attacker moves the result of its own job to the key of a job that has not ended: readers
    // may not do that.
    let (mine, other) = (fixture.space.keys().result(&id), "victim".parse().unwrap());
    let victim = fixture.space.keys().result(&other);
    for user in ["reader", "application", "operator", "submitter"] {
        let url = redis.url_of(user, PASSWORD);
        let mut connection = redis::Client::open(url).unwrap().get_connection().unwrap();
        let moved: redis::RedisResult<Value> = redis::cmd("BLMOVE")
            .arg(&[&mine, &victim, "LEFT", "LEFT", "1"])
            .query(&mut connection);
        assert!(moved.is_err(), "{user}: {moved:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_works_for_an_application_and_for_an_operator() {
    let redis = PrivateRedis::start(&[]);
    let fixture = QueueFixture::on(&redis, "acl-command").await;
    fixture.user(&redis, "application").await;
    let settings_of_one =
        worker_settings(&settings(&redis.url()), fixture.space.namespace(), "one");
    let counter = AttemptCounter::default();
    let working = start_worker(&settings_of_one, &counter).await;
    let sandhog = |user: &str, words: &[&str]| {
        let output = environment::sandhog_command()
            .args(words)
            .args(["--redis", &redis.url_of(user, PASSWORD)])
            .args(["--namespace", fixture.space.namespace().as_str(), "--json"])
            .output()
            .expect("sandhog starts");
        assert!(output.status.success(), "{user} {words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let run = sandhog("application", &["run", "-c", "pass"]);
    assert!(run.contains("succeeded"), "{run}");
    let id = sandhog("application", &["submit", "-c", "pass", "--id", "later"]);
    assert!(id.contains("later"), "{id}");
    sandhog("application", &["wait", "later"]);
    for words in [
        &["status"][..],
        &["top", "--once"],
        &["dead", "list"],
        &["schedule", "list"],
    ] {
        sandhog("operator", words);
    }
    working
        .stop(tokio_util::sync::CancellationToken::new())
        .await;
}
