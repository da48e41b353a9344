//! The command `sandhog schedule`, from its arguments to the job in the intake.

use std::process::Output;

use sandhog_queue::ScheduleState;
use sandhog_testkit::environment;
use serde_json::Value;

use crate::fixture::QueueFixture;

impl QueueFixture {
    fn command(&self, words: &[&str]) -> Output {
        environment::sandhog_command()
            .args(words)
            .args(["--redis", self.space.url()])
            .args(["--namespace", self.space.namespace().as_str(), "--json"])
            .output()
            .expect("sandhog starts")
    }

    /// Runs a command that must succeed, and returns the lines that it prints.
    fn answers(&self, words: &[&str]) -> Vec<Value> {
        let output = self.command(words);
        assert!(output.status.success(), "{words:?}: {output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

#[tokio::test]
async fn a_schedules_life_by_command() {
    let fixture = QueueFixture::shared("cron-command").await;
    let cron = ["schedule", "add", "report", "30 3 * * MON-FRI"];
    let flags = [
        "--zone",
        "Europe/Berlin",
        "--tenant",
        "acme",
        "--timeout",
        "5s",
    ];
    let add = [&cron[..], &["-c", "print(1)"], &flags[..]].concat();
    let added = &fixture.answers(&add)[0];
    let next = added["next"].as_str().unwrap();
    assert!(next.contains(" 03:30:00 +0"), "{next}");
    let again = fixture.command(&add);
    assert_eq!(again.status.code(), Some(64), "{again:?}");
    let replaced = [&add[..], &["--replace", "--overlap", "skip"]].concat();
    assert_eq!(fixture.answers(&replaced).len(), 1);

    let listed = fixture.answers(&["schedule", "list"]);
    let [report] = listed.as_slice() else {
        panic!("{listed:?}");
    };
    assert_eq!(report["state"], "active");
    assert_eq!(report["next_ms"], added["next_ms"]);
    assert_eq!(report["routing"]["unique"], "cron:report");
    let shown = &fixture.answers(&["schedule", "show", "report"])[0];
    assert_eq!(shown["job"]["code"], "print(1)");
    assert_eq!(shown["job"]["limits"]["timeout_ms"], 5000);

    let id = fixture.answers(&["schedule", "run-now", "report"])[0]["id"].clone();
    fixture.admit().await;
    let record = fixture.record(&id.as_str().unwrap().parse().unwrap()).await;
    assert_eq!(record.tenant.as_str(), "acme");

    let state = async || {
        let name = "report".parse().unwrap();
        let record = fixture.queue.schedule(&name).await.unwrap();
        record.map(|record| (record.state, record.next.is_some()))
    };
    fixture.answers(&["schedule", "pause", "report"]);
    assert_eq!(state().await, Some((ScheduleState::Paused, false)));
    fixture.answers(&["schedule", "resume", "report"]);
    assert_eq!(state().await, Some((ScheduleState::Active, true)));
    fixture.answers(&["schedule", "remove", "report"]);
    assert_eq!(state().await, None);
    for words in [
        ["remove", "report"],
        ["show", "report"],
        ["resume", "report"],
    ] {
        let output = fixture.command(&[&["schedule"], &words[..]].concat());
        assert_eq!(output.status.code(), Some(66), "{words:?}");
    }
}
