//! Sizes in the scripts: the class in which a job waits, reservations of capacity, and jobs that no
//! worker can hold.

use sandhog_core::class::Class;
use sandhog_core::id::JobId;
use sandhog_core::size::Resources;
use sandhog_core::submission::Routing;
use sandhog_core::tenant_limits::{Change, TenantChange};
use sandhog_core::units::Millis;
use sandhog_queue::{ClaimRequest, FinishReply, Lack, SettlementRequest, Ticket, WorkerFacts};
use sandhog_testkit::eventually::eventually_async;

use crate::fixture::{
    QueueFixture, WAIT_TIMEOUT, facts, named, payload, success, weighing, worker,
};

const NOW: Millis = Millis(0);
const LATER: Millis = Millis(3_600_000);
const LIFE: Millis = Millis(600_000);

fn class(text: &str) -> Class {
    text.parse().unwrap()
}

impl QueueFixture {
    async fn ready_of(&self, name: &str, memory_mib: u64, cpu: u64) -> JobId {
        let routing = named(name);
        let payload = weighing(memory_mib, cpu);
        let id = self.queue.submit(&routing, &payload).await.unwrap();
        self.admit().await;
        id
    }

    async fn tickets_of(&self, who: &str, class: &Class, most: usize) -> Vec<Ticket> {
        let mut reader = self.queue.ticket_reader(&worker(who)).await.unwrap();
        reader.try_read(class, most).await.unwrap()
    }

    async fn reserve(&self, who: &str, after: Millis, classes: &[Class]) -> Option<Class> {
        let who = worker(who);
        (self.queue.reserve(&who, after, LIFE, classes))
            .await
            .unwrap()
    }

    /// Waits until the next ticket's id is certainly later than those before it.
    async fn let_a_moment_pass(&self) {
        let time: Vec<u64> = self.plain(&["TIME"]).await;
        let ms = |time: &[u64]| time[0] * 1000 + time[1] / 1000;
        let before = ms(&time);
        while ms(&self.plain::<Vec<u64>>(&["TIME"]).await) <= before + 1 {}
    }
}

#[tokio::test]
async fn jobs_of_a_size_wait_in_a_class_of_their_own() {
    let fixture = QueueFixture::shared("sizes").await;
    let ordinary = fixture.ready_of("ordinary", 512, 1000).await;
    let large = fixture.ready_of("large", 2000, 1500).await;
    let sized = class("cpu~m2048c1500");
    assert_eq!(
        fixture.queue.classes().await.unwrap(),
        [Class::default(), sized.clone()]
    );
    for (id, size) in [(&ordinary, "m512c1000"), (&large, "m2048c1500")] {
        let record = fixture.record(id).await;
        assert_eq!(record.class, Class::default());
        assert_eq!(record.size.to_string(), size);
    }
    assert_eq!(
        fixture.tickets_of("one", &Class::default(), 9).await.len(),
        1
    );
    let [ticket] = &fixture.tickets_of("one", &sized, 9).await[..] else {
        panic!("one large job has one ticket");
    };
    let bound = fixture.queue.bind(ticket, &worker("one")).await.unwrap();
    let sandhog_queue::Binding::Bound(bound) = bound else {
        panic!("{bound:?}");
    };
    assert_eq!((&bound.lease.id, &bound.lease.class), (&large, &sized));
}

#[tokio::test]
async fn nobody_submits_a_size() {
    let fixture = QueueFixture::shared("size-forged").await;
    let key = fixture.queue.keys().jobs();
    let text = String::from_utf8(payload()).unwrap();
    let id: String = fixture
        .plain(&["XADD", &key, "*", "job", &text, "class", "cpu~m64c125"])
        .await;
    fixture.admit().await;
    let result = fixture.result(&id.parse().unwrap()).await;
    assert_eq!(result.error.unwrap().code, "bad_field");
}

#[tokio::test]
async fn a_settlement_claims_no_more_than_fits() {
    let fixture = QueueFixture::shared("size-claim").await;
    let one = worker("one");
    for n in 0..3 {
        fixture.ready_of(&format!("small-{n}"), 128, 250).await;
    }
    for n in 0..3 {
        fixture.ready_of(&format!("large-{n}"), 1024, 1000).await;
    }
    let first = fixture.ready_of("first", 512, 1000).await;
    let held = fixture.bound(&one).await;
    let classes = ["cpu~m1024c1000", "cpu~m128c250"].map(class);
    let each = |n: usize| (classes[n].clone(), classes[n].size().resources());
    let claiming = ClaimRequest {
        most: 9,
        free: Resources {
            memory_mib: 1024 + 2 * 128 + 127,
            cpu_millis: 64_000,
        },
        classes: vec![each(0), each(1)],
        lane: 0,
    };
    let endings = [SettlementRequest {
        lease: held.lease.clone(),
        settlement: success(&first),
        log: Vec::new(),
    }];
    let (replies, claimed) = fixture
        .queue
        .finish_and_claim(&endings, &claiming)
        .await
        .unwrap();
    assert_eq!(replies, [FinishReply::Settled]);
    let ids: Vec<&str> = claimed.iter().map(|job| job.lease.id.as_str()).collect();
    assert_eq!(ids, ["large-0", "small-0", "small-1"]);
    for (class, left) in classes.iter().zip([2, 1]) {
        let unread = fixture.tickets_of("two", class, 9).await;
        assert_eq!(
            unread.len(),
            left,
            "tickets of jobs that did not fit stay readable: {class}"
        );
    }
}

#[tokio::test]
async fn room_is_kept_for_the_job_that_has_waited_longest() {
    let fixture = QueueFixture::shared("reserve").await;
    let classes = ["cpu", "cpu~m1024c1000", "cpu~m2048c1000"].map(class);
    assert_eq!(
        fixture.reserve("one", NOW, &classes).await,
        None,
        "nothing waits"
    );
    for (name, memory) in [("large", 2048), ("small", 512), ("middle", 1024)] {
        fixture.ready_of(name, memory, 1000).await;
        fixture.let_a_moment_pass().await;
    }
    assert_eq!(
        fixture.reserve("one", LATER, &classes).await,
        None,
        "the job has not waited long enough yet"
    );
    assert_eq!(
        fixture.reserve("one", NOW, &classes).await.as_ref(),
        Some(&classes[2])
    );
    assert_eq!(
        fixture.reserve("one", NOW, &classes).await.as_ref(),
        Some(&classes[2]),
        "the same worker may ask again"
    );
    assert_eq!(
        fixture.reserve("two", NOW, &classes).await,
        None,
        "one job, one worker"
    );
    assert_eq!(
        fixture.reserve("three", NOW, &classes[..2]).await.as_ref(),
        Some(&classes[0]),
        "a worker too small for the largest job checks the other classes"
    );

    let [_ticket] = &fixture.tickets_of("one", &classes[2], 1).await[..] else {
        panic!("the large job has a ticket");
    };
    assert_eq!(
        fixture.reserve("three", NOW, &classes).await.as_ref(),
        Some(&classes[0]),
        "the worker that holds the oldest ticket no longer counts"
    );
}

#[tokio::test]
async fn as_many_workers_keep_room_as_jobs_wait() {
    let fixture = QueueFixture::shared("reserve-many").await;
    let classes = [class("cpu~m2048c1000")];
    for n in 0..2 {
        fixture.ready_of(&format!("large-{n}"), 2048, 1000).await;
    }
    fixture.let_a_moment_pass().await;
    for (who, granted) in [("one", true), ("two", true), ("three", false)] {
        let answer = fixture.reserve(who, NOW, &classes).await;
        assert_eq!(answer.is_some(), granted, "{who}");
    }
    let paused = TenantChange {
        paused: Change::Set(()),
        ..TenantChange::default()
    };
    let tenant = Routing::default().tenant;
    fixture.queue.set_tenant(&tenant, &paused).await.unwrap();
    assert_eq!(
        fixture.reserve("one", NOW, &classes).await,
        None,
        "a job of a paused tenant gets no reservation"
    );
}

#[tokio::test]
async fn a_worker_that_is_gone_keeps_no_room() {
    let fixture = QueueFixture::shared("reserve-gone").await;
    let classes = [class("cpu~m2048c1000")];
    fixture.ready_of("large", 2048, 1000).await;
    fixture.let_a_moment_pass().await;
    let short = Millis(300);
    let gone = worker("gone");
    let granted = fixture.queue.reserve(&gone, NOW, short, &classes).await;
    assert!(granted.unwrap().is_some());
    eventually_async(WAIT_TIMEOUT, async || {
        let granted = fixture.reserve("next", NOW, &classes).await;
        granted.ok_or_else(|| "the reservation does not end".to_owned())
    })
    .await;
    assert_eq!(fixture.reserve("third", NOW, &classes).await, None);
}

#[tokio::test]
async fn what_no_worker_can_hold_is_unroutable() {
    let mut fixture = QueueFixture::shared("unroutable-size").await;
    let large = class("cpu~m4096c1000");
    let id = fixture.ready_of("large", 4096, 1000).await;
    let mut lacks = Vec::new();
    for (id, tags, largest) in [
        ("a", ["gpu"], Some("m65536c64000")),
        ("b", ["cpu"], Some("m3072c64000")),
        ("c", ["cpu"], Some("m4096c750")),
        ("d", ["cpu"], Some("m4096c1000")),
    ] {
        let says = WorkerFacts {
            largest: largest.map(|size| size.parse().unwrap()),
            ..facts(id, &tags)
        };
        fixture.queue.announce(&says, LIFE).await.unwrap();
        let found = fixture.queue.mark_unroutable(&[&large]).await.unwrap();
        lacks.push(found.first().map(|found| found.lack));
    }
    assert_eq!(
        lacks,
        [Some(Lack::Tags), Some(Lack::Room), Some(Lack::Room), None]
    );
    let mut events = fixture.events().await;
    events.retain(|event| event.ends_with("routable"));
    assert_eq!(events, ["unroutable", "routable"]);
    let _cancelled = fixture.queue.cancel_now(&id).await.unwrap();

    let snapshot = fixture.queue.snapshot().await.unwrap();
    assert_eq!(fixture.queue.unroutable(&snapshot).await.unwrap(), []);
    fixture
        .queue
        .announce(&facts("d", &["cpu"]), LIFE)
        .await
        .unwrap();
    fixture.ready_of("huge", 60_000, 1000).await;
    let snapshot = fixture.queue.snapshot().await.unwrap();
    assert_eq!(
        fixture.queue.unroutable(&snapshot).await.unwrap(),
        [],
        "a worker without limits can hold any job"
    );
}
