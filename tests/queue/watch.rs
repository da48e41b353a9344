//! Data for people who watch a queue: running jobs, recent events, and `sandhog top` without a
//! terminal.

use sandhog_common::class::Class;
use sandhog_common::submission::Routing;
use sandhog_tests::given;
use serde_json::Value;

use crate::desk::{Desk, named, success, worker};

impl Desk {
    /// Returns the output of `sandhog top` without a terminal.
    fn top(&self, words: &[&str]) -> String {
        let output = given::sandhog_command()
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
    let desk = Desk::shared("watch-running").await;
    let classes = [Class::default()];
    assert_eq!(desk.queue.running(&classes).await.unwrap(), []);
    let mut ids = Vec::new();
    for number in 0..70 {
        let routing = Routing {
            tenant: "acme".parse().unwrap(),
            ..named(&format!("job-{number}"))
        };
        desk.submit(&routing).await;
        ids.push(format!("job-{number}"));
    }
    desk.admit().await;
    let mut leases = Vec::new();
    for _ in &ids {
        leases.push(desk.bound(&worker("one")).await.lease);
    }
    let running = desk.queue.running(&classes).await.unwrap();
    assert_eq!(running.len(), 64, "of many some");
    assert!(running.is_sorted_by(|a, b| a.age >= b.age));
    let first = running.iter().find(|job| job.id == leases[0].id).unwrap();
    assert_eq!((first.tenant.as_str(), first.attempts), ("acme", 1));
    assert_eq!(first.worker, worker("one"));
    for lease in &leases {
        let _settled = desk.queue.finish(lease, success(&lease.id)).await.unwrap();
    }
    assert_eq!(desk.queue.running(&classes).await.unwrap(), []);

    let events = desk.queue.recent_events(1000).await.unwrap();
    let of = |name: &str| events.iter().filter(|event| event.name == name).count();
    assert_eq!(
        (of("admitted"), of("started"), of("finished")),
        (70, 70, 70)
    );
    let last = events.last().unwrap();
    assert_eq!(last.fact("outcome"), Some("succeeded"));
    assert_eq!(last.tenant, "acme");
    let some = desk.queue.recent_events(2).await.unwrap();
    assert!(!some.is_empty() && some.len() <= 16);
    assert_eq!(some.last(), Some(last), "the latest are read");
}

#[tokio::test]
async fn without_a_terminal_top_prints_one_picture() {
    let desk = Desk::shared("watch-top").await;
    let held = desk.ready(&named("held")).await;
    let lease = desk.bound(&worker("one")).await.lease;
    assert_eq!(lease.id, held);
    let ended = desk.ready(&named("ended")).await;
    let over = desk.bound(&worker("one")).await.lease;
    let _settled = desk.queue.finish(&over, success(&ended)).await.unwrap();

    let picture = desk.top(&[]);
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

    let object: Value = serde_json::from_str(&desk.top(&["--json"])).unwrap();
    assert_eq!(object["running"][0]["id"], "held");
    assert_eq!(object["recent"][0]["id"], "ended");
    assert_eq!(object["queue"]["classes"][0]["running"], 1);
}
