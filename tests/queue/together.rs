//! Batches: one call binds or settles many jobs, with the same effect as one call for each.

use std::collections::BTreeMap;
use std::time::Duration;

use sandhog_core::class::Class;
use sandhog_core::id::JobId;
use sandhog_core::outcome::Outcome;
use sandhog_core::submission::Routing;
use sandhog_core::units::Millis;
use sandhog_queue::{
    Binding, BoundJob, ClaimRequest, FinishReply, HeartbeatReply, Lease, LogChunk, LogEntry,
    LogPosition, LogStream, RetryBudget, Settlement, SettlementRequest, Ticket,
};

use crate::fixture::{LEASE, QueueFixture, WAIT_TIMEOUT, payload, success, worker};

fn class(tags: &str) -> Class {
    tags.parse().unwrap()
}

fn of(tags: &str) -> Routing {
    Routing {
        class: class(tags),
        ..Routing::default()
    }
}

impl QueueFixture {
    /// Takes at most `most` tickets of these classes for this worker.
    async fn tickets(&self, who: &str, classes: &[Class], most: usize) -> Vec<Ticket> {
        let mut reader = self.queue.ticket_reader(&worker(who)).await.unwrap();
        reader.read(classes, most, WAIT_TIMEOUT).await.unwrap()
    }

    /// Binds tickets, each of which must yield a job.
    async fn bind_each(&self, who: &str, tickets: &[Ticket]) -> Vec<BoundJob> {
        let bindings = self.queue.bind_all(tickets, &worker(who)).await.unwrap();
        bindings
            .into_iter()
            .map(|binding| match binding {
                Binding::Bound(job) => *job,
                Binding::Nothing => panic!("every ticket is worth a job"),
            })
            .collect()
    }

    async fn stream_length(&self, class: &Class) -> u64 {
        self.plain(&["XLEN", &self.queue.keys().tickets(class)])
            .await
    }
}

fn ids(jobs: &[BoundJob]) -> Vec<JobId> {
    jobs.iter().map(|job| job.lease.id.clone()).collect()
}

#[tokio::test]
async fn tickets_read_together_are_bound_in_the_order_of_their_jobs() {
    let fixture = QueueFixture::shared("bind-many").await;
    let mut jobs = Vec::new();
    for _ in 0..100 {
        jobs.push((Routing::default(), payload()));
    }
    let submitted = fixture.queue.submit_many(&jobs).await.unwrap();
    fixture.admit().await;
    let tickets = fixture.tickets("one", &[Class::default()], 70).await;
    assert_eq!(tickets.len(), 70, "as many as there are slots");
    let bound = fixture.bind_each("one", &tickets).await;
    assert_eq!(ids(&bound), submitted[..70]);
    assert_eq!(fixture.bind_each("one", &tickets).await, bound, "repeated");
    let rest = fixture.tickets("two", &[Class::default()], 70).await;
    assert_eq!(rest.len(), 30, "as many as there are");
    assert_eq!(ids(&fixture.bind_each("two", &rest).await), submitted[70..]);
    let thief = fixture
        .queue
        .bind_all(&tickets, &worker("two"))
        .await
        .unwrap();
    assert_eq!(thief, vec![Binding::Nothing; 70]);
}

#[tokio::test]
async fn a_batch_is_shared_like_one_at_a_time() {
    let fixture = QueueFixture::shared("bind-fair").await;
    let heavy = format!("{}tenant:heavy", fixture.queue.keys().prefix());
    let _set: i64 = fixture.plain(&["HSET", &heavy, "weight", "3"]).await;
    for tenant in ["first", "heavy", "light"] {
        let routing = Routing {
            tenant: tenant.parse().unwrap(),
            ..Routing::default()
        };
        let jobs = vec![(routing, payload()); 60];
        fixture.queue.submit_many(&jobs).await.unwrap();
    }
    fixture.admit().await;
    let mut started: BTreeMap<String, usize> = BTreeMap::new();
    for most in [1, 7, 16, 1, 25] {
        let tickets = fixture.tickets("one", &[Class::default()], most).await;
        for job in fixture.bind_each("one", &tickets).await {
            *started.entry(job.tenant.to_string()).or_default() += 1;
        }
    }
    assert_eq!(started["heavy"], 30, "{started:?}");
    assert_eq!((started["first"], started["light"]), (10, 10));
}

#[tokio::test]
async fn every_class_is_read_from_and_no_more_than_was_asked_for() {
    let fixture = QueueFixture::shared("some-classes").await;
    for _ in 0..3 {
        fixture.ready(&of("cpu")).await;
        fixture.ready(&of("gpu")).await;
    }
    let classes = [class("cpu"), class("gpu")];
    let tickets = fixture.tickets("one", &classes, 5).await;
    assert_eq!(tickets.len(), 5);
    let bound = fixture.bind_each("one", &tickets).await;
    for (ticket, job) in tickets.iter().zip(&bound) {
        assert_eq!(ticket.class, job.lease.class);
        assert_eq!(ticket.token, job.lease.token);
    }
    assert_eq!(fixture.tickets("two", &classes, 5).await.len(), 1);
    assert_eq!(fixture.tickets("two", &classes, 0).await, []);
}

#[tokio::test]
async fn settling_together_tells_each_its_own_and_settles_none_twice() {
    let fixture = QueueFixture::shared("finish-many").await;
    for _ in 0..4 {
        fixture.ready(&of("cpu")).await;
        fixture.ready(&of("gpu")).await;
    }
    let classes = [class("cpu"), class("gpu")];
    let tickets = fixture.tickets("one", &classes, 8).await;
    let bound = fixture.bind_each("one", &tickets).await;
    let lease = |n: usize| -> Lease { bound[n].lease.clone() };
    let publish = |n: usize| (lease(n), success(&lease(n).id));
    let mut foreign = lease(6);
    foreign.worker = worker("two");
    let replies = fixture
        .queue
        .finish_all(&[
            publish(0),
            publish(0),
            (
                lease(1),
                Settlement::Retry {
                    after: Millis(0),
                    why: "again".into(),
                    counts_as: sandhog_queue::RetryBudget::Attempt,
                },
            ),
            (
                lease(2),
                Settlement::DeadLetter {
                    result: payload(),
                    outcome: Outcome::Lost,
                    reason: "lost".into(),
                    error: "no reason at all".into(),
                },
            ),
            (foreign, success(&lease(6).id)),
            (lease(3), Settlement::GiveBack),
            publish(5),
        ])
        .await
        .unwrap();
    let mut wanted = vec![FinishReply::Settled; 7];
    wanted[4] = FinishReply::Stale;
    assert_eq!(replies, wanted);
    assert_eq!(fixture.counter("finished_succeeded").await, 2);
    assert_eq!(fixture.counter("finished_lost").await, 1);
    assert_eq!(fixture.counter("retried").await, 1);
    assert_eq!(fixture.counter("given_back").await, 1);
    assert_eq!(fixture.counter("stale").await, 1);
    let snapshot = fixture.queue.snapshot().await.unwrap();
    let running: u64 = snapshot.classes.iter().map(|class| class.running).sum();
    let ready: u64 = snapshot.classes.iter().map(|class| class.ready).sum();
    assert_eq!((running, ready), (3, 2));
}

#[tokio::test]
async fn what_is_settled_together_is_gone_and_what_others_hold_stays() {
    let fixture = QueueFixture::shared("trim").await;
    let cpu = Class::default();
    for _ in 0..12 {
        fixture.ready(&Routing::default()).await;
    }
    let early = fixture.tickets("slow", std::slice::from_ref(&cpu), 1).await;
    let tickets = fixture.tickets("one", std::slice::from_ref(&cpu), 8).await;
    let slow = fixture.bind_each("slow", &early).await.remove(0).lease;
    let bound = fixture.bind_each("one", &tickets).await;
    let settle = |some: &[BoundJob]| -> Vec<(Lease, Settlement)> {
        some.iter()
            .map(|job| (job.lease.clone(), success(&job.lease.id)))
            .collect()
    };
    // An older ticket is still a lease, so tickets after it must not be trimmed.
    fixture
        .queue
        .finish_all(&settle(&bound[..4]))
        .await
        .unwrap();
    assert_eq!(fixture.stream_length(&cpu).await, 8);
    let reply = fixture
        .queue
        .finish(&slow, success(&slow.id))
        .await
        .unwrap();
    assert_eq!(reply, FinishReply::Settled);
    // Now these are the oldest. Tickets that no worker has read yet remain.
    fixture
        .queue
        .finish_all(&settle(&bound[4..]))
        .await
        .unwrap();
    assert_eq!(fixture.stream_length(&cpu).await, 3);
    let rest = fixture.tickets("one", std::slice::from_ref(&cpu), 8).await;
    assert_eq!(fixture.bind_each("one", &rest).await.len(), 3);
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
async fn a_slot_that_is_freed_takes_the_next_job_in_the_same_step() {
    let fixture = QueueFixture::shared("finish-claim").await;
    let classes = [class("gpu"), class("cpu"), class("tpu")];
    for _ in 0..6 {
        fixture.ready(&of("cpu")).await;
    }
    fixture.ready(&of("gpu")).await;
    let tickets = fixture.tickets("one", &classes[1..2], 3).await;
    let bound = fixture.bind_each("one", &tickets).await;
    let settle =
        |some: &[BoundJob]| -> Vec<SettlementRequest> { some.iter().map(silent).collect() };
    let (replies, next) = fixture
        .queue
        .finish_and_claim(&settle(&bound), &ClaimRequest::unbounded(3, &classes))
        .await
        .unwrap();
    assert_eq!(replies, [FinishReply::Settled; 3]);
    let of_classes: Vec<&str> = next.iter().map(|job| job.lease.class.as_str()).collect();
    assert_eq!(
        of_classes,
        ["gpu", "cpu", "cpu"],
        "as many as were settled, in the order of the classes"
    );
    for job in &next {
        let leases = std::slice::from_ref(&job.lease);
        let beat = fixture.queue.heartbeat(&job.lease.worker, leases).await;
        assert_eq!(beat.unwrap(), [HeartbeatReply::Held], "they are leases");
        assert_eq!(fixture.record(&job.lease.id).await.attempts, 1);
    }
    // A slot whose lease was lost becomes free as well; a worker that is stopping claims nothing.
    fixture.age(&next[0].lease).await;
    fixture.queue.maintain_fully(LEASE, 3).await.unwrap();
    let (replies, more) = fixture
        .queue
        .finish_and_claim(
            &settle(&next[..1]),
            &ClaimRequest::unbounded(1, &classes[1..2]),
        )
        .await
        .unwrap();
    assert_eq!(replies, [FinishReply::Stale]);
    assert_eq!(more.len(), 1);
    let (replies, none) = fixture
        .queue
        .finish_and_claim(&settle(&next[1..]), &ClaimRequest::unbounded(2, &[]))
        .await
        .unwrap();
    assert_eq!((replies.len(), none.len()), (2, 0));
    assert_eq!(
        fixture
            .queue
            .finish_and_claim::<SettlementRequest>(&[], &ClaimRequest::unbounded(1, &classes))
            .await
            .unwrap()
            .1,
        []
    );
}

/// Returns the ending of a job that succeeded and printed nothing.
fn silent(job: &BoundJob) -> SettlementRequest {
    SettlementRequest {
        lease: job.lease.clone(),
        settlement: success(&job.lease.id),
        log: Vec::new(),
    }
}

#[tokio::test]
async fn the_last_of_a_jobs_output_is_logged_as_it_is_settled() {
    let fixture = QueueFixture::shared("last-words").await;
    let said = |stream, text: &str| LogChunk {
        stream,
        data: text.as_bytes().to_vec(),
    };
    for _ in 0..4 {
        fixture.ready(&Routing::default()).await;
    }
    let tickets = fixture.tickets("one", &[Class::default()], 4).await;
    let bound = fixture.bind_each("one", &tickets).await;
    let (first, mut endings): (&BoundJob, Vec<SettlementRequest>) =
        (&bound[0], bound.iter().map(silent).collect());
    let early = [said(LogStream::Stdout, "1"), said(LogStream::Stderr, "2")];
    assert!(fixture.queue.log_all(&first.lease, &early).await.unwrap());
    endings[0].log = vec![
        said(LogStream::Stdout, "3"),
        said(LogStream::Stderr, "\r\n\0"),
    ];
    endings[1].log = vec![said(LogStream::Stderr, "only this")];
    endings[2].log = vec![said(LogStream::Stdout, "will be tried again")];
    endings[2].settlement = Settlement::Retry {
        after: Millis(0),
        why: "why not".to_owned(),
        counts_as: RetryBudget::Attempt,
    };
    fixture.age(&bound[3].lease).await;
    fixture.queue.maintain_fully(LEASE, 3).await.unwrap();
    endings[3].log = vec![said(LogStream::Stdout, "not ours any more")];
    for _ in 0..2 {
        let nothing = ClaimRequest::default();
        let call = fixture.queue.finish_and_claim(&endings, &nothing);
        let (replies, _none) = call.await.unwrap();
        let settled = FinishReply::Settled;
        let wanted = [settled, settled, settled, FinishReply::Stale];
        assert_eq!(replies, wanted);
    }
    let log = async |job: &BoundJob| -> Vec<(String, String)> {
        let mut reader = fixture.queue.log_reader(&job.lease.id).await.unwrap();
        let read = reader.next(&LogPosition::start(), Duration::ZERO).await;
        let told = |entry| match entry {
            LogEntry::Chunk { stream, data, .. } => {
                (stream.as_str().to_owned(), String::from_utf8(data).unwrap())
            }
            LogEntry::End { outcome } => ("end".to_owned(), format!("{outcome:?}")),
        };
        read.unwrap().into_iter().map(told).collect()
    };
    let pairs = |all: &[(&str, &str)]| -> Vec<(String, String)> {
        let owned = |(one, other): &(&str, &str)| ((*one).to_owned(), (*other).to_owned());
        all.iter().map(owned).collect()
    };
    let end = ("end", "Some(Succeeded)");
    let whole = [
        ("stdout", "1"),
        ("stderr", "2"),
        ("stdout", "3"),
        ("stderr", "\r\n\0"),
        end,
    ];
    assert_eq!(log(first).await, pairs(&whole), "in order, and once");
    assert_eq!(log(&bound[1]).await, pairs(&[("stderr", "only this"), end]));
    let tried = pairs(&[("stdout", "will be tried again")]);
    assert_eq!(log(&bound[2]).await, tried, "it goes on");
    assert_eq!(log(&bound[3]).await, [], "a stale lease writes nothing");
    let lost = fixture.bound(&worker("two")).await;
    assert_eq!(
        lost.lease.id, bound[3].lease.id,
        "the lost job keeps its place in the queue"
    );
    let again = fixture.bound(&worker("two")).await;
    assert_eq!(again.lease.id, bound[2].lease.id);
    let settled = fixture.queue.finish(&again.lease, success(&again.lease.id));
    assert_eq!(settled.await.unwrap(), FinishReply::Settled);
    let whole = pairs(&[("stdout", "will be tried again"), end]);
    assert_eq!(
        log(&again).await,
        whole,
        "a log that was started has an end mark"
    );
}

/// The built-in script, which the test calls twice with the same arguments: a broken connection can
/// turn one call into two.
const FINISH: &str = concat!(
    include_str!("../../common/queue/src/lua/lib/constants.lua"),
    include_str!("../../common/queue/src/lua/lib/job.lua"),
    include_str!("../../common/queue/src/lua/lib/tickets.lua"),
    include_str!("../../common/queue/src/lua/lib/lease.lua"),
    include_str!("../../common/queue/src/lua/lib/fairness.lua"),
    include_str!("../../common/queue/src/lua/lib/ready_set.lua"),
    include_str!("../../common/queue/src/lua/lib/writes.lua"),
    include_str!("../../common/queue/src/lua/lib/terminal.lua"),
    include_str!("../../common/queue/src/lua/lib/retained.lua"),
    include_str!("../../common/queue/src/lua/lib/tenants.lua"),
    include_str!("../../common/queue/src/lua/lib/claim.lua"),
    include_str!("../../common/queue/src/lua/lib/output.lua"),
    include_str!("../../common/queue/src/lua/scripts/finish.lua"),
);

#[tokio::test]
async fn a_claim_whose_answer_was_lost_is_answered_again() {
    let fixture = QueueFixture::shared("claim-again").await;
    for _ in 0..5 {
        fixture.ready(&Routing::default()).await;
    }
    let tickets = fixture.tickets("one", &[Class::default()], 2).await;
    let bound = fixture.bind_each("one", &tickets).await;
    let prefix = fixture.queue.keys().prefix();
    let call = async |word: &str, jobs: &[BoundJob]| -> Vec<redis::Value> {
        let most = jobs.len().to_string();
        let mut words = vec![
            "EVAL", FINISH, "1", prefix, "one", word, "0", &most, "1024", "2000",
        ];
        words.extend(["1", "cpu", "512", "1000"]);
        for job in jobs {
            let lease = &job.lease;
            words.extend([
                lease.class.as_str(),
                lease.token.as_str(),
                lease.id.as_str(),
            ]);
            words.extend(["publish", "{}", "succeeded", "", "", "0"]);
        }
        fixture.plain(&words).await
    };
    let first = call("a", &bound).await;
    assert_eq!(first.len(), 2 + 2 * 3, "two settled, two claimed");
    assert_eq!(call("a", &bound).await, first, "the same leases");
    let running = fixture.queue.snapshot().await.unwrap().classes[0].running;
    assert_eq!(running, 2);
    let other = call("b", &bound[..1]).await;
    assert_eq!(other.len(), 1 + 3, "a new call claims a new job");
    assert_eq!(call("c", &bound).await.len(), 2, "nothing is left");
}
