//! Data for people who watch a queue: running jobs, recent events, and `sandhog top` without a
//! terminal.

use sandhog_core::class::Class;
use sandhog_core::submission::Routing;
use sandhog_testkit::environment;
use serde_json::Value;

use crate::fixture::{QueueFixture, named, success, worker};

impl QueueFixture {
    /// Returns the output of `sandhog top` without a terminal.
    fn top(&self, words: &[&str]) -> String {
        let output = environment::sandhog_command()
            .args(["top", "--redis", self.space.url()])
            .args(["--namespace", self.space.namespace().as_str()])
            .args(words)
            .env("COLUMNS", "100")
            .output()
            .expect("sandhog starts");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

#[tokio::test]
async fn running_jobs_are_listed_longest_first() {
    let fixture = QueueFixture::shared("watch-running").await;
    let classes = [Class::default()];
    assert_eq!(fixture.queue.running(&classes).await.unwrap(), []);
    let mut ids = Vec::new();
    for number in 0..70 {
        let routing = Routing {
            tenant: "acme".parse().unwrap(),
            ..named(&format!("job-{number}"))
        };
        fixture.submit(&routing).await;
        ids.push(format!("job-{number}"));
    }
    fixture.admit().await;
    let mut leases = Vec::new();
    for _ in &ids {
        leases.push(fixture.bound(&worker("one")).await.lease);
    }
    let running = fixture.queue.running(&classes).await.unwrap();
    assert_eq!(running.len(), 64, "of many some");
    assert!(running.is_sorted_by(|a, b| a.age >= b.age));
    let first = running.iter().find(|job| job.id == leases[0].id).unwrap();
    assert_eq!((first.tenant.as_str(), first.attempts), ("acme", 1));
    assert_eq!(first.worker, worker("one"));
    for lease in &leases {
        let _settled = fixture
            .queue
            .finish(lease, success(&lease.id))
            .await
            .unwrap();
    }
    assert_eq!(fixture.queue.running(&classes).await.unwrap(), []);

    let events = fixture.queue.recent_events(1000).await.unwrap();
    let of = |name: &str| events.iter().filter(|event| event.name == name).count();
    assert_eq!(
        (of("admitted"), of("started"), of("finished")),
        (70, 70, 70)
    );
    let last = events.last().unwrap();
    assert_eq!(last.fact("outcome"), Some("succeeded"));
    assert_eq!(last.tenant, "acme");
    let some = fixture.queue.recent_events(2).await.unwrap();
    assert!(!some.is_empty() && some.len() <= 16);
    assert_eq!(some.last(), Some(last), "the latest are read");
}

#[tokio::test]
async fn without_a_terminal_top_prints_one_picture() {
    let fixture = QueueFixture::shared("watch-top").await;
    let held = fixture.ready(&named("held")).await;
    let lease = fixture.bound(&worker("one")).await.lease;
    assert_eq!(lease.id, held);
    let ended = fixture.ready(&named("ended")).await;
    let over = fixture.bound(&worker("one")).await.lease;
    let _settled = fixture.queue.finish(&over, success(&ended)).await.unwrap();

    let picture = fixture.top(&[]);
    let row = |begin: &str| {
        let found = picture.lines().find(|line| line.starts_with(begin));
        let words = found.unwrap_or_else(|| panic!("no {begin} in\n{picture}"));
        words
            .split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert!(picture.starts_with("sandhog top "), "{picture}");
    assert_eq!(row("cpu ")[..3], ["cpu", "0", "1"]);
    assert_eq!(row("held ")[..3], ["held", "cpu", "default"]);
    assert_eq!(row("ended ").last().map(String::as_str), Some("succeeded"));
    assert!(picture.contains("no workers"), "{picture}");
    assert!(!picture.contains('\u{1b}'), "no control sequences");

    let object: Value = serde_json::from_str(&fixture.top(&["--json"])).unwrap();
    assert_eq!(object["running"][0]["id"], "held");
    assert_eq!(object["recent"][0]["id"], "ended");
    assert_eq!(object["queue"]["classes"][0]["running"], 1);
}
