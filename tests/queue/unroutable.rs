//! Work that no live worker serves: every reader of the queue sees it, and each period of it is
//! reported once.

use sandhog_core::class::Class;
use sandhog_core::id::WorkerId;
use sandhog_core::submission::Routing;
use sandhog_core::units::Millis;
use sandhog_queue::{Unroutable, WorkerFacts};

use crate::fixture::{QueueFixture, facts, worker};

const LIFE: Millis = Millis(600_000);

fn class() -> Class {
    "a100+gpu".parse().unwrap()
}

impl QueueFixture {
    async fn ready_for(&self, class: Class) {
        self.ready(&Routing {
            class,
            ..Routing::default()
        })
        .await;
    }

    async fn announce(&self, facts: &WorkerFacts) {
        self.queue.announce(facts, LIFE).await.unwrap();
    }

    async fn forget(&self, id: &WorkerId) {
        let _gone: i64 = self.plain(&["DEL", &self.queue.keys().worker(id)]).await;
    }

    /// Returns the unroutable classes with the number of their ready jobs, as a reader without side
    /// effects sees them.
    async fn unroutable(&self) -> Vec<(Class, u64)> {
        let snapshot = self.queue.snapshot().await.unwrap();
        let found = self.queue.unroutable(&snapshot).await.unwrap();
        found.into_iter().map(|f| (f.class, f.jobs)).collect()
    }

    async fn marked(&self, classes: &[&Class]) -> Vec<Unroutable> {
        self.queue.mark_unroutable(classes).await.unwrap()
    }

    /// Returns the events about routes so far.
    async fn told(&mut self) -> Vec<String> {
        let mut events = self.events().await;
        events.retain(|event| event.ends_with("routable"));
        events
    }
}

#[tokio::test]
async fn what_no_live_worker_serves_is_seen() {
    let fixture = QueueFixture::shared("unroutable").await;
    assert_eq!(fixture.unroutable().await, []);
    fixture.ready_for(class()).await;
    fixture.ready_for(class()).await;
    fixture.ready_for(Class::default()).await;
    let both = [(class(), 2), (Class::default(), 1)];
    assert_eq!(fixture.unroutable().await, both, "no worker exists");

    fixture.announce(&facts("small", &["cpu"])).await;
    fixture.announce(&facts("half", &["cpu", "gpu"])).await;
    assert_eq!(fixture.unroutable().await, [(class(), 2)]);
    fixture
        .announce(&facts("whole", &["a100", "cpu", "gpu"]))
        .await;
    assert_eq!(fixture.unroutable().await, []);

    let draining = WorkerFacts {
        draining: true,
        ..facts("whole", &["a100", "cpu", "gpu"])
    };
    fixture.announce(&draining).await;
    assert_eq!(
        fixture.unroutable().await,
        [(class(), 2)],
        "a draining worker claims nothing"
    );
    fixture
        .announce(&facts("whole", &["a100", "cpu", "gpu"]))
        .await;
    fixture.forget(&worker("whole")).await;
    assert_eq!(
        fixture.unroutable().await,
        [(class(), 2)],
        "the worker's record has expired"
    );
}

#[tokio::test]
async fn a_spell_is_told_once_at_its_beginning_and_at_its_end() {
    let mut fixture = QueueFixture::shared("unroutable-spell").await;
    fixture.ready_for(class()).await;
    fixture.announce(&facts("small", &["cpu"])).await;
    let class = class();
    let first = fixture.marked(&[&class]).await;
    let [found] = first.as_slice() else {
        panic!("{first:?}");
    };
    assert_eq!((&found.class, found.jobs), (&class, 1));
    assert!(found.since.is_some());
    let ours = [&class];
    let both = tokio::join!(fixture.marked(&ours), fixture.marked(&[]));
    assert_eq!(
        (&both.0, &both.1),
        (&first, &first),
        "both calls see the same period"
    );
    assert_eq!(fixture.told().await, ["unroutable"]);

    fixture.announce(&facts("whole", &["a100", "gpu"])).await;
    assert_eq!(fixture.marked(&[]).await, [], "any worker ends the period");
    assert_eq!(fixture.marked(&[]).await, []);
    assert_eq!(fixture.told().await, ["unroutable", "routable"]);
    fixture.forget(&worker("whole")).await;
    assert_eq!(fixture.marked(&[&class]).await.len(), 1);
    assert_eq!(
        fixture.told().await,
        ["unroutable", "routable", "unroutable"],
        "a new period begins"
    );
    assert!(fixture.keys().await.contains(&"unroutable".to_owned()));
}

#[tokio::test]
async fn a_class_whose_jobs_are_gone_is_no_longer_unroutable() {
    let mut fixture = QueueFixture::shared("unroutable-gone").await;
    let routing = Routing {
        class: class(),
        ..Routing::default()
    };
    let id = fixture.ready(&routing).await;
    assert_eq!(fixture.marked(&[&class()]).await.len(), 1);
    let _cancelled = fixture.queue.cancel_now(&id).await.unwrap();
    assert_eq!(fixture.marked(&[]).await, []);
    assert_eq!(fixture.told().await, ["unroutable", "routable"]);
    assert!(!fixture.keys().await.contains(&"unroutable".to_owned()));
}
