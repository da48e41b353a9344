//! Tickets: each call takes one, none is lost, and a blocking read ends when it is told to.

use std::time::Duration;

use sandhog_common::class::Class;
use sandhog_common::queue::Binding;
use sandhog_common::submission::Routing;

use crate::desk::{Desk, FOR_EVER, LEASE, PATIENCE, soon, worker};

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
    let desk = Desk::shared("classes").await;
    let classes = [class("cpu"), class("gpu"), class("gpu+a100")];
    for class in &classes {
        for _ in 0..2 {
            desk.ready(&of(class.as_str())).await;
        }
    }
    let one = worker("one");
    let mut reader = desk.queue.ticket_reader(&one).await.unwrap();
    let mut taken = Vec::new();
    for _ in 0..6 {
        let ticket = reader.next(&classes, PATIENCE).await.unwrap().unwrap();
        taken.push(ticket.class.clone());
        let Binding::Bound(job) = desk.queue.bind(&ticket, &one).await.unwrap() else {
            panic!("every ticket is worth a job");
        };
        assert_eq!(job.lease.class, ticket.class);
        for class in &classes {
            let pending: (u64,) = desk.pending(class).await;
            let bound: u64 = desk
                .plain(&[
                    "HLEN",
                    &format!("{}bound:{class}", desk.queue.keys().prefix()),
                ])
                .await;
            assert_eq!(pending.0, bound, "no ticket is pending without a bound job");
        }
    }
    let in_turn: Vec<Class> = classes.iter().chain(&classes).cloned().collect();
    assert_eq!(taken, in_turn);
}

impl Desk {
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
    let desk = Desk::shared("surplus").await;
    let (cpu, gpu) = (class("cpu"), class("gpu"));
    let first = desk.ready(&of("cpu")).await;
    let second = desk.ready(&of("gpu")).await;
    let (greedy, other) = (worker("greedy"), worker("other"));
    let mut reader = desk.queue.ticket_reader(&greedy).await.unwrap();
    let mut taken = Vec::new();
    for class in [&cpu, &gpu] {
        let ticket = reader
            .next(std::slice::from_ref(class), Duration::ZERO)
            .await
            .unwrap();
        taken.push(ticket.unwrap());
    }
    desk.queue
        .return_tickets(&taken[1..], &other)
        .await
        .unwrap();
    assert_eq!(
        desk.pending(&gpu).await,
        (1,),
        "a worker cannot return another worker's ticket"
    );
    desk.queue
        .return_tickets(&taken[1..], &greedy)
        .await
        .unwrap();
    desk.queue
        .return_tickets(&taken[1..], &greedy)
        .await
        .unwrap();
    assert_eq!(desk.pending(&gpu).await, (0,));
    assert_eq!(
        desk.queue.bind(&taken[1], &greedy).await.unwrap(),
        Binding::Nothing,
        "a returned ticket binds no job"
    );
    let mut reader = desk.queue.ticket_reader(&other).await.unwrap();
    let fresh = reader
        .next(&[cpu.clone(), gpu.clone()], PATIENCE)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(fresh.class, gpu);
    for (ticket, who, id) in [(&taken[0], &greedy, first), (&fresh, &other, second)] {
        let Binding::Bound(job) = desk.queue.bind(ticket, who).await.unwrap() else {
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
    let desk = Desk::shared("return-bound").await;
    desk.ready(&Routing::default()).await;
    let one = worker("one");
    let ticket = desk.ticket(&one).await.unwrap();
    let bound = desk.queue.bind(&ticket, &one).await.unwrap();
    desk.queue
        .return_tickets(std::slice::from_ref(&ticket), &one)
        .await
        .unwrap();
    assert_eq!(
        desk.queue.bind(&ticket, &one).await.unwrap(),
        bound,
        "it is a lease"
    );
    let Binding::Bound(job) = bound else {
        panic!("the ticket is worth a job");
    };
    let beat = desk.queue.beat(&one, &[job.lease]).await.unwrap();
    assert_eq!(beat, [sandhog_common::queue::BeatReply::Held]);
}

#[tokio::test]
async fn a_class_nobody_has_used_can_be_waited_for() {
    let desk = Desk::shared("new-class").await;
    let one = worker("one");
    let mut reader = desk.queue.ticket_reader(&one).await.unwrap();
    let waiting = tokio::spawn(async move {
        let classes = [class("cpu"), class("tpu")];
        reader.next(&classes, PATIENCE).await
    });
    desk.ready(&of("tpu")).await;
    let ticket = waiting
        .await
        .unwrap()
        .unwrap()
        .expect("the ticket wakes the reader");
    assert_eq!(ticket.class, class("tpu"));
    desk.queue.return_tickets(&[ticket], &one).await.unwrap();
    assert_eq!(desk.queue.classes().await.unwrap(), [class("tpu")]);
}

#[tokio::test]
async fn a_group_that_was_destroyed_is_made_again_and_leases_survive() {
    let desk = Desk::shared("no-group").await;
    let running = desk.ready(&Routing::default()).await;
    let (one, two) = (worker("one"), worker("two"));
    let lease = desk.bound(&one).await.lease;
    let waiting = desk.ready(&Routing::default()).await;
    let key = desk.queue.keys().tickets(&Class::default());
    let _destroyed: i64 = desk.plain(&["XGROUP", "DESTROY", &key, "workers"]).await;
    // The new group begins at the first entry, so the lease's own ticket is delivered again,
    // without a job.
    let job = desk.bound(&two).await;
    assert_eq!(job.lease.id, waiting);
    let beat = desk
        .queue
        .beat(&one, std::slice::from_ref(&lease))
        .await
        .unwrap();
    assert_eq!(beat, [sandhog_common::queue::BeatReply::Held]);
    assert_eq!(desk.queue.tick(LEASE, 3).await.unwrap().reaped, 0);
    let reply = desk
        .queue
        .finish(&lease, crate::desk::success(&running))
        .await
        .unwrap();
    assert_eq!(reply, sandhog_common::queue::FinishReply::Settled);
}

#[tokio::test]
async fn a_ready_job_whose_ticket_was_deleted_by_hand_gets_another() {
    let desk = Desk::shared("mend").await;
    let id = desk.ready(&Routing::default()).await;
    let key = desk.queue.keys().tickets(&Class::default());
    let _trimmed: i64 = desk.plain(&["XTRIM", &key, "MAXLEN", "0"]).await;
    assert_eq!(desk.claim(&worker("one")).await, None);
    assert_eq!(desk.queue.tick(LEASE, 3).await.unwrap().mended, 1);
    assert_eq!(desk.bound(&worker("one")).await.lease.id, id);
}

#[tokio::test]
async fn a_whole_streams_tickets_are_made_anew_in_one_round() {
    let desk = Desk::shared("mend-many").await;
    let jobs = vec![(Routing::default(), crate::desk::payload()); 200];
    desk.queue.submit_many(&jobs).await.unwrap();
    desk.admit().await;
    let key = desk.queue.keys().tickets(&Class::default());
    let _trimmed: i64 = desk.plain(&["XTRIM", &key, "MAXLEN", "0"]).await;
    assert_eq!(desk.queue.tick(LEASE, 3).await.unwrap().mended, 200);
    let tickets: u64 = desk.plain(&["XLEN", &key]).await;
    assert_eq!(
        tickets, 200,
        "regardless of the number that one call restores"
    );
    let report = desk.queue.tick(LEASE, 3).await.unwrap();
    assert!(report.is_idle(), "no further ticket is added: {report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unblock_ends_the_present_read_or_else_the_next() {
    let desk = Desk::shared("unblock").await;
    let mut reader = desk.queue.ticket_reader(&worker("one")).await.unwrap();
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
    desk.ready(&Routing::default()).await;
    let ticket = soon(reader.next(&classes, FOR_EVER)).await.unwrap();
    assert!(ticket.is_some(), "the connection still works");
}

#[tokio::test]
async fn a_dropped_read_does_not_poison_the_next() {
    let desk = Desk::shared("dropped").await;
    let mut reader = desk.queue.ticket_reader(&worker("one")).await.unwrap();
    let classes = [Class::default()];
    let dropped = tokio::time::timeout(Duration::from_millis(1), reader.next(&classes, PATIENCE));
    assert!(dropped.await.is_err(), "nothing comes");
    desk.ready(&Routing::default()).await;
    let report = desk
        .queue
        .tick(sandhog_common::units::Millis(0), 3)
        .await
        .unwrap();
    assert!(
        report.reissued <= 1,
        "at most the abandoned read has taken the ticket"
    );
    assert!(reader.next(&classes, PATIENCE).await.unwrap().is_some());
}

#[tokio::test]
async fn an_unused_class_is_forgotten_and_made_anew() {
    let desk = Desk::shared("forget").await;
    let one = worker("one");
    let id = desk.ready(&of("gpu")).await;
    let gpu = class("gpu");
    let key = desk.queue.keys().tickets(&gpu);
    assert_eq!(
        desk.queue.tick(LEASE, 3).await.unwrap().classes_forgotten,
        0
    );
    desk.queue.cancel_now(&id).await.unwrap();
    let mut reader = desk.queue.ticket_reader(&one).await.unwrap();
    let classes = [gpu.clone()];
    let ticket = reader.next(&classes, PATIENCE).await.unwrap().unwrap();
    assert_eq!(
        desk.queue.bind(&ticket, &one).await.unwrap(),
        Binding::Nothing
    );
    assert_eq!(
        desk.queue.tick(LEASE, 3).await.unwrap().classes_forgotten,
        0,
        "the class was used just now"
    );
    // The same stream, with its last ticket long ago.
    let _deleted: i64 = desk.plain(&["DEL", &key]).await;
    let _long_ago: String = desk.plain(&["XADD", &key, "1-1", "t", "1"]).await;
    let _made: String = desk
        .plain(&["XGROUP", "CREATE", &key, "workers", "0"])
        .await;
    let _gone: i64 = desk.plain(&["XDEL", &key, "1-1"]).await;
    assert_eq!(
        desk.queue.tick(LEASE, 3).await.unwrap().classes_forgotten,
        1
    );
    assert_eq!(desk.queue.classes().await.unwrap(), []);
    let waiting = tokio::spawn(async move { reader.next(&classes, PATIENCE).await });
    desk.ready(&of("gpu")).await;
    let ticket = waiting.await.unwrap().unwrap();
    assert_eq!(ticket.expect("the class is back").class, gpu);
}

#[tokio::test]
async fn there_is_an_end_to_classes() {
    let desk = Desk::shared("many-classes").await;
    // Several tenants, because one tenant may not create this many classes.
    let jobs: Vec<_> = (0..1001)
        .map(|n| {
            let routing = Routing {
                tenant: format!("t{}", n / 250).parse().unwrap(),
                ..of(&format!("c{n}"))
            };
            (routing, crate::desk::payload())
        })
        .collect();
    let ids = desk.queue.submit_many(&jobs).await.unwrap();
    desk.admit().await;
    let last = desk.result(ids.last().unwrap()).await;
    assert_eq!(last.error.unwrap().code, "too_many_classes");
    assert_eq!(desk.queue.classes().await.unwrap().len(), 1000);
    desk.ready(&of("c7")).await;
    let snapshot = desk.queue.snapshot().await.unwrap();
    let ready: u64 = snapshot.classes.iter().map(|class| class.ready).sum();
    assert_eq!(ready, 1001, "a class in use is kept: {}", snapshot.dead);
    assert!(desk.queue.tick(LEASE, 3).await.unwrap().is_idle());
}
