//! The stream of events and its table in docs/reference/events.md: every event has its row, and
//! every row has an event.

use std::collections::{BTreeMap, BTreeSet};

use sandhog_core::outcome::Outcome;
use sandhog_core::submission::{Routing, Start};
use sandhog_core::units::Millis;
use sandhog_queue::{RetryBudget, Settlement};
use sandhog_testkit::environment;

use crate::fixture::{LEASE, QueueFixture, payload, success, worker};

/// Names of facts, by event.
type FactsByEvent = BTreeMap<String, BTreeSet<String>>;

/// Returns the table of the page.
fn published() -> FactsByEvent {
    let page =
        std::fs::read_to_string(environment::checkout().join("docs/reference/events.md")).unwrap();
    let words = |cell: &str| -> Vec<String> {
        let quoted = cell.split('`').skip(1).step_by(2);
        quoted.map(str::to_owned).collect()
    };
    page.lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            let cells: Vec<&str> = line.split('|').collect();
            let name = words(cells[1]).remove(0);
            (name, words(cells[2]).into_iter().collect())
        })
        .collect()
}

impl QueueFixture {
    /// Makes jobs go through every event that a job can have.
    async fn trigger_all_events(&self) {
        let one = worker("one");
        let retry = Settlement::Retry {
            after: Millis(3_600_000),
            why: "again".into(),
            counts_as: RetryBudget::Attempt,
        };
        let dead = Settlement::DeadLetter {
            result: payload(),
            outcome: Outcome::Lost,
            reason: "lost".into(),
            error: "no reason at all".into(),
        };
        let later = Routing {
            start: Start::After(Millis(3_600_000)),
            ..Routing::default()
        };
        let delayed = self.ready(&later).await;
        let key = self.queue.keys().delayed();
        let _due: i64 = self
            .plain(&["ZADD", &key, "XX", "1", delayed.as_str()])
            .await;
        self.queue.maintain_fully(LEASE, 3).await.unwrap();
        for settlement in [Settlement::GiveBack, retry, dead] {
            self.ready(&Routing::default()).await;
            let lease = self.bound(&one).await.lease;
            let _settled = self.queue.finish(&lease, settlement).await.unwrap();
        }
        while let Some(job) = self.claim(&one).await {
            self.queue.cancel_now(&job.lease.id).await.unwrap();
            let _settled = self.queue.finish(&job.lease, success(&job.lease.id)).await;
        }
        let letters = self.queue.requeue_all(&Default::default()).await.unwrap();
        assert_eq!(letters.done, 1);
        let lost = self.bound(&one).await.lease;
        self.age(&lost).await;
        assert_eq!(self.queue.maintain_fully(LEASE, 3).await.unwrap().reaped, 1);
        let class = sandhog_core::class::Class::default();
        self.queue.mark_unroutable(&[&class]).await.unwrap();
        self.bound(&one).await;
        self.queue.mark_unroutable(&[&class]).await.unwrap();
    }
}

#[tokio::test]
async fn every_event_is_on_the_page_with_its_facts() {
    let fixture = QueueFixture::shared("events").await;
    fixture.trigger_all_events().await;
    let mut seen = FactsByEvent::new();
    for event in fixture.queue.recent_events(1000).await.unwrap() {
        let facts = seen.entry(event.name).or_default();
        facts.extend(event.facts.into_iter().map(|(name, _)| name));
    }
    assert_eq!(seen, published());
}
