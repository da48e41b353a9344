//! Tickets: each call takes one, none is lost, and a blocking read ends when it is told to.

use std::time::Duration;

use sandhog_core::class::Class;
use sandhog_core::submission::Routing;
use sandhog_queue::Binding;

use crate::fixture::{FOR_EVER, LEASE, QueueFixture, WAIT_TIMEOUT, soon, worker};

fn class(tags: &str) -> Class {
    tags.parse().unwrap()
}

fn of(tags: &str) -> Routing {
    Routing {
        class: class(tags),
        ..Routing::default()
    }
}

#[tokio::test]
async fn each_call_takes_one_ticket_and_every_class_gets_its_turn() {
    let fixture = QueueFixture::shared("classes").await;
    let classes = [class("cpu"), class("gpu"), class("gpu+a100")];
    for class in &classes {
        for _ in 0..2 {
            fixture.ready(&of(class.as_str())).await;
        }
    }
    let one = worker("one");
    let mut reader = fixture.queue.ticket_reader(&one).await.unwrap();
    let mut taken = Vec::new();
    for _ in 0..6 {
        let ticket = reader.next(&classes, WAIT_TIMEOUT).await.unwrap().unwrap();
        taken.push(ticket.class.clone());
        let Binding::Bound(job) = fixture.queue.bind(&ticket, &one).await.unwrap() else {
            panic!("every ticket is worth a job");
        };
        assert_eq!(job.lease.class, ticket.class);
        for class in &classes {
            let pending: (u64,) = fixture.pending(class).await;
            let bound: u64 = fixture
                .plain(&[
                    "HLEN",
                    &format!("{}bound:{class}", fixture.queue.keys().prefix()),
                ])
                .await;
            assert_eq!(pending.0, bound, "no ticket is pending without a bound job");
        }
    }
    let in_turn: Vec<Class> = classes.iter().chain(&classes).cloned().collect();
    assert_eq!(taken, in_turn);
}

impl QueueFixture {
    /// Returns the number of pending tickets of a class.
    async fn pending(&self, class: &Class) -> (u64,) {
        let key = self.queue.keys().tickets(class);
        let summary: Vec<redis::Value> = self.plain(&["XPENDING", &key, "workers"]).await;
        redis::from_redis_value(summary[0].clone())
            .map(|n| (n,))
            .unwrap()
    }
}

#[tokio::test]
async fn surplus_tickets_go_back() {
    // `COUNT` applies to each stream, so one read over several streams can take too many tickets.
    // The surplus is put back as new tickets.
    let fixture = QueueFixture::shared("surplus").await;
    let (cpu, gpu) = (class("cpu"), class("gpu"));
    let first = fixture.ready(&of("cpu")).await;
    let second = fixture.ready(&of("gpu")).await;
    let (greedy, other) = (worker("greedy"), worker("other"));
    let mut reader = fixture.queue.ticket_reader(&greedy).await.unwrap();
    let mut taken = Vec::new();
    for class in [&cpu, &gpu] {
        let ticket = reader
            .next(std::slice::from_ref(class), Duration::ZERO)
            .await
            .unwrap();
        taken.push(ticket.unwrap());
    }
    fixture
        .queue
        .return_tickets(&taken[1..], &other)
        .await
        .unwrap();
    assert_eq!(
        fixture.pending(&gpu).await,
        (1,),
        "a worker cannot return another worker's ticket"
    );
    fixture
        .queue
        .return_tickets(&taken[1..], &greedy)
        .await
        .unwrap();
    fixture
        .queue
        .return_tickets(&taken[1..], &greedy)
        .await
        .unwrap();
    assert_eq!(fixture.pending(&gpu).await, (0,));
    assert_eq!(
        fixture.queue.bind(&taken[1], &greedy).await.unwrap(),
        Binding::Nothing,
        "a returned ticket binds no job"
    );
    let mut reader = fixture.queue.ticket_reader(&other).await.unwrap();
    let fresh = reader
        .next(&[cpu.clone(), gpu.clone()], WAIT_TIMEOUT)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(fresh.class, gpu);
    for (ticket, who, id) in [(&taken[0], &greedy, first), (&fresh, &other, second)] {
        let Binding::Bound(job) = fixture.queue.bind(ticket, who).await.unwrap() else {
            panic!("the ticket is worth a job");
        };
        assert_eq!(job.lease.id, id);
    }
    assert_eq!(
        reader.next(&[cpu, gpu], Duration::ZERO).await.unwrap(),
        None
    );
}

#[tokio::test]
async fn a_bound_ticket_cannot_be_returned() {
    let fixture = QueueFixture::shared("return-bound").await;
    fixture.ready(&Routing::default()).await;
    let one = worker("one");
    let ticket = fixture.ticket(&one).await.unwrap();
    let bound = fixture.queue.bind(&ticket, &one).await.unwrap();
    fixture
        .queue
        .return_tickets(std::slice::from_ref(&ticket), &one)
        .await
        .unwrap();
    assert_eq!(
        fixture.queue.bind(&ticket, &one).await.unwrap(),
        bound,
        "it is a lease"
    );
    let Binding::Bound(job) = bound else {
        panic!("the ticket is worth a job");
    };
    let beat = fixture.queue.heartbeat(&one, &[job.lease]).await.unwrap();
    assert_eq!(beat, [sandhog_queue::HeartbeatReply::Held]);
}

#[tokio::test]
async fn a_class_nobody_has_used_can_be_waited_for() {
    let fixture = QueueFixture::shared("new-class").await;
    let one = worker("one");
    let mut reader = fixture.queue.ticket_reader(&one).await.unwrap();
    let waiting = tokio::spawn(async move {
        let classes = [class("cpu"), class("tpu")];
        reader.next(&classes, WAIT_TIMEOUT).await
    });
    fixture.ready(&of("tpu")).await;
    let ticket = waiting
        .await
        .unwrap()
        .unwrap()
        .expect("the ticket wakes the reader");
    assert_eq!(ticket.class, class("tpu"));
    fixture.queue.return_tickets(&[ticket], &one).await.unwrap();
    assert_eq!(fixture.queue.classes().await.unwrap(), [class("tpu")]);
}

#[tokio::test]
async fn a_group_that_was_destroyed_is_made_again_and_leases_survive() {
    let fixture = QueueFixture::shared("no-group").await;
    let running = fixture.ready(&Routing::default()).await;
    let (one, two) = (worker("one"), worker("two"));
    let lease = fixture.bound(&one).await.lease;
    let waiting = fixture.ready(&Routing::default()).await;
    let key = fixture.queue.keys().tickets(&Class::default());
    let _destroyed: i64 = fixture.plain(&["XGROUP", "DESTROY", &key, "workers"]).await;
    // The new group begins at the first entry, so the lease's own ticket is delivered again,
    // without a job.
    let job = fixture.bound(&two).await;
    assert_eq!(job.lease.id, waiting);
    let beat = fixture
        .queue
        .heartbeat(&one, std::slice::from_ref(&lease))
        .await
        .unwrap();
    assert_eq!(beat, [sandhog_queue::HeartbeatReply::Held]);
    assert_eq!(
        fixture.queue.maintain_fully(LEASE, 3).await.unwrap().reaped,
        0
    );
    let reply = fixture
        .queue
        .finish(&lease, crate::fixture::success(&running))
        .await
        .unwrap();
    assert_eq!(reply, sandhog_queue::FinishReply::Settled);
}

#[tokio::test]
async fn a_ready_job_whose_ticket_was_deleted_by_hand_gets_another() {
    let fixture = QueueFixture::shared("mend").await;
    let id = fixture.ready(&Routing::default()).await;
    let key = fixture.queue.keys().tickets(&Class::default());
    let _trimmed: i64 = fixture.plain(&["XTRIM", &key, "MAXLEN", "0"]).await;
    assert_eq!(fixture.claim(&worker("one")).await, None);
    assert_eq!(
        fixture
            .queue
            .maintain_fully(LEASE, 3)
            .await
            .unwrap()
            .restored,
        1
    );
    assert_eq!(fixture.bound(&worker("one")).await.lease.id, id);
}

#[tokio::test]
async fn a_whole_streams_tickets_are_made_anew_in_one_round() {
    let fixture = QueueFixture::shared("mend-many").await;
    let jobs = vec![(Routing::default(), crate::fixture::payload()); 200];
    fixture.queue.submit_many(&jobs).await.unwrap();
    fixture.admit().await;
    let key = fixture.queue.keys().tickets(&Class::default());
    let _trimmed: i64 = fixture.plain(&["XTRIM", &key, "MAXLEN", "0"]).await;
    assert_eq!(
        fixture
            .queue
            .maintain_fully(LEASE, 3)
            .await
            .unwrap()
            .restored,
        200
    );
    let tickets: u64 = fixture.plain(&["XLEN", &key]).await;
    assert_eq!(
        tickets, 200,
        "regardless of the number that one call restores"
    );
    let report = fixture.queue.maintain_fully(LEASE, 3).await.unwrap();
    assert!(report.is_idle(), "no further ticket is added: {report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unblock_ends_the_present_read_or_else_the_next() {
    let fixture = QueueFixture::shared("unblock").await;
    let mut reader = fixture.queue.ticket_reader(&worker("one")).await.unwrap();
    let unblocker = reader.unblocker();
    let classes = [Class::default()];
    unblocker.unblock().await.unwrap();
    let next = soon(reader.next(&classes, FOR_EVER)).await;
    assert_eq!(next.unwrap(), None, "the next");
    let none = soon(reader.next(&[], Duration::from_millis(1))).await;
    assert_eq!(none.unwrap(), None, "no class at all");
    for round in 0..200 {
        let classes = classes.clone();
        let reading = tokio::spawn(async move {
            let answer = reader.next(&classes, FOR_EVER).await;
            (reader, answer)
        });
        // The wait is ended at different moments: before the read has begun, while its command is
        // on the way, and later.
        for _ in 0..round % 20 {
            tokio::task::yield_now().await;
        }
        soon(unblocker.unblock()).await.unwrap();
        let (back, answer) = soon(reading).await.unwrap();
        assert_eq!(answer.unwrap(), None, "round {round}");
        reader = back;
    }
    fixture.ready(&Routing::default()).await;
    let ticket = soon(reader.next(&classes, FOR_EVER)).await.unwrap();
    assert!(ticket.is_some(), "the connection still works");
}

#[tokio::test]
async fn a_dropped_read_does_not_poison_the_next() {
    let fixture = QueueFixture::shared("dropped").await;
    let mut reader = fixture.queue.ticket_reader(&worker("one")).await.unwrap();
    let classes = [Class::default()];
    let dropped = tokio::time::timeout(
        Duration::from_millis(1),
        reader.next(&classes, WAIT_TIMEOUT),
    );
    assert!(dropped.await.is_err(), "nothing comes");
    fixture.ready(&Routing::default()).await;
    let report = fixture
        .queue
        .maintain_fully(sandhog_core::units::Millis(0), 3)
        .await
        .unwrap();
    assert!(
        report.reissued <= 1,
        "at most the abandoned read has taken the ticket"
    );
    assert!(reader.next(&classes, WAIT_TIMEOUT).await.unwrap().is_some());
}

#[tokio::test]
async fn an_unused_class_is_forgotten_and_made_anew() {
    let fixture = QueueFixture::shared("forget").await;
    let one = worker("one");
    let id = fixture.ready(&of("gpu")).await;
    let gpu = class("gpu");
    let key = fixture.queue.keys().tickets(&gpu);
    assert_eq!(
        fixture
            .queue
            .maintain_fully(LEASE, 3)
            .await
            .unwrap()
            .classes_forgotten,
        0
    );
    fixture.queue.cancel_now(&id).await.unwrap();
    let mut reader = fixture.queue.ticket_reader(&one).await.unwrap();
    let classes = [gpu.clone()];
    let ticket = reader.next(&classes, WAIT_TIMEOUT).await.unwrap().unwrap();
    assert_eq!(
        fixture.queue.bind(&ticket, &one).await.unwrap(),
        Binding::Nothing
    );
    assert_eq!(
        fixture
            .queue
            .maintain_fully(LEASE, 3)
            .await
            .unwrap()
            .classes_forgotten,
        0,
        "the class was used just now"
    );
    // The same stream, with its last ticket long ago.
    let _deleted: i64 = fixture.plain(&["DEL", &key]).await;
    let _long_ago: String = fixture.plain(&["XADD", &key, "1-1", "t", "1"]).await;
    let _made: String = fixture
        .plain(&["XGROUP", "CREATE", &key, "workers", "0"])
        .await;
    let _gone: i64 = fixture.plain(&["XDEL", &key, "1-1"]).await;
    assert_eq!(
        fixture
            .queue
            .maintain_fully(LEASE, 3)
            .await
            .unwrap()
            .classes_forgotten,
        1
    );
    assert_eq!(fixture.queue.classes().await.unwrap(), []);
    let waiting = tokio::spawn(async move { reader.next(&classes, WAIT_TIMEOUT).await });
    fixture.ready(&of("gpu")).await;
    let ticket = waiting.await.unwrap().unwrap();
    assert_eq!(ticket.expect("the class is back").class, gpu);
}

#[tokio::test]
async fn there_is_an_end_to_classes() {
    let fixture = QueueFixture::shared("many-classes").await;
    // Several tenants, because one tenant may not create this many classes.
    let jobs: Vec<_> = (0..1001)
        .map(|n| {
            let routing = Routing {
                tenant: format!("t{}", n / 250).parse().unwrap(),
                ..of(&format!("c{n}"))
            };
            (routing, crate::fixture::payload())
        })
        .collect();
    let ids = fixture.queue.submit_many(&jobs).await.unwrap();
    fixture.admit().await;
    let last = fixture.result(ids.last().unwrap()).await;
    assert_eq!(last.error.unwrap().code, "too_many_classes");
    assert_eq!(fixture.queue.classes().await.unwrap().len(), 1000);
    fixture.ready(&of("c7")).await;
    let snapshot = fixture.queue.snapshot().await.unwrap();
    let ready: u64 = snapshot.classes.iter().map(|class| class.ready).sum();
    assert_eq!(ready, 1001, "a class in use is kept: {}", snapshot.dead);
    assert!(
        fixture
            .queue
            .maintain_fully(LEASE, 3)
            .await
            .unwrap()
            .is_idle()
    );
}
