//! The stream of events and its table in docs/events.md: every event has its row, and every row has
//! an event.

use std::collections::{BTreeMap, BTreeSet};

use sandhog_common::outcome::Outcome;
use sandhog_common::queue::{RetryBudget, Settlement};
use sandhog_common::submission::{Routing, Start};
use sandhog_common::units::Millis;
use sandhog_tests::given;

use crate::desk::{Desk, LEASE, payload, success, worker};

/// Names of facts, by event.
type Table = BTreeMap<String, BTreeSet<String>>;

/// Returns the table of the page.
fn published() -> Table {
    let page = std::fs::read_to_string(given::checkout().join("docs/events.md")).unwrap();
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

impl Desk {
    /// Makes jobs go through every event that a job can have.
    async fn live_through_it_all(&self) {
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
        self.queue.tick(LEASE, 3).await.unwrap();
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
        assert_eq!(self.queue.tick(LEASE, 3).await.unwrap().reaped, 1);
        let class = sandhog_common::class::Class::default();
        self.queue.mark_unroutable(&[&class]).await.unwrap();
        self.bound(&one).await;
        self.queue.mark_unroutable(&[&class]).await.unwrap();
    }
}

#[tokio::test]
async fn every_event_is_on_the_page_with_its_facts() {
    let desk = Desk::shared("events").await;
    desk.live_through_it_all().await;
    let mut seen = Table::new();
    for event in desk.queue.recent_events(1000).await.unwrap() {
        let facts = seen.entry(event.name).or_default();
        facts.extend(event.facts.into_iter().map(|(name, _)| name));
    }
    assert_eq!(seen, published());
}
