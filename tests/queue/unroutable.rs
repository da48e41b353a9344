//! Work that no live worker serves: every reader of the queue sees it, and each period of it is
//! reported once.

use sandhog_common::class::Class;
use sandhog_common::id::WorkerId;
use sandhog_common::queue::{Unroutable, WorkerFacts};
use sandhog_common::submission::Routing;
use sandhog_common::units::Millis;

use crate::desk::{Desk, facts, worker};

const LIFE: Millis = Millis(600_000);

fn class() -> Class {
    "a100+gpu".parse().unwrap()
}

impl Desk {
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
    let desk = Desk::shared("unroutable").await;
    assert_eq!(desk.unroutable().await, []);
    desk.ready_for(class()).await;
    desk.ready_for(class()).await;
    desk.ready_for(Class::default()).await;
    let both = [(class(), 2), (Class::default(), 1)];
    assert_eq!(desk.unroutable().await, both, "no worker exists");

    desk.announce(&facts("small", &["cpu"])).await;
    desk.announce(&facts("half", &["cpu", "gpu"])).await;
    assert_eq!(desk.unroutable().await, [(class(), 2)]);
    desk.announce(&facts("whole", &["a100", "cpu", "gpu"]))
        .await;
    assert_eq!(desk.unroutable().await, []);

    let draining = WorkerFacts {
        draining: true,
        ..facts("whole", &["a100", "cpu", "gpu"])
    };
    desk.announce(&draining).await;
    assert_eq!(
        desk.unroutable().await,
        [(class(), 2)],
        "a draining worker claims nothing"
    );
    desk.announce(&facts("whole", &["a100", "cpu", "gpu"]))
        .await;
    desk.forget(&worker("whole")).await;
    assert_eq!(
        desk.unroutable().await,
        [(class(), 2)],
        "the worker's record has expired"
    );
}

#[tokio::test]
async fn a_spell_is_told_once_at_its_beginning_and_at_its_end() {
    let mut desk = Desk::shared("unroutable-spell").await;
    desk.ready_for(class()).await;
    desk.announce(&facts("small", &["cpu"])).await;
    let class = class();
    let first = desk.marked(&[&class]).await;
    let [found] = first.as_slice() else {
        panic!("{first:?}");
    };
    assert_eq!((&found.class, found.jobs), (&class, 1));
    assert!(found.since.is_some());
    let ours = [&class];
    let both = tokio::join!(desk.marked(&ours), desk.marked(&[]));
    assert_eq!(
        (&both.0, &both.1),
        (&first, &first),
        "both calls see the same period"
    );
    assert_eq!(desk.told().await, ["unroutable"]);

    desk.announce(&facts("whole", &["a100", "gpu"])).await;
    assert_eq!(desk.marked(&[]).await, [], "any worker ends the period");
    assert_eq!(desk.marked(&[]).await, []);
    assert_eq!(desk.told().await, ["unroutable", "routable"]);
    desk.forget(&worker("whole")).await;
    assert_eq!(desk.marked(&[&class]).await.len(), 1);
    assert_eq!(
        desk.told().await,
        ["unroutable", "routable", "unroutable"],
        "a new period begins"
    );
    assert!(desk.keys().await.contains(&"unroutable".to_owned()));
}

#[tokio::test]
async fn a_class_whose_jobs_are_gone_is_no_longer_unroutable() {
    let mut desk = Desk::shared("unroutable-gone").await;
    let routing = Routing {
        class: class(),
        ..Routing::default()
    };
    let id = desk.ready(&routing).await;
    assert_eq!(desk.marked(&[&class()]).await.len(), 1);
    let _cancelled = desk.queue.cancel_now(&id).await.unwrap();
    assert_eq!(desk.marked(&[]).await, []);
    assert_eq!(desk.told().await, ["unroutable", "routable"]);
    assert!(!desk.keys().await.contains(&"unroutable".to_owned()));
}
