//! The command `sandhog dead`, from its arguments to its effect on the queue; and the report of
//! `sandhog doctor` about work that no worker serves.

use std::process::Output;

use sandhog_core::id::JobId;
use sandhog_core::outcome::Outcome;
use sandhog_core::submission::Routing;
use sandhog_queue::{JobState, Settlement};
use sandhog_testkit::environment;
use serde_json::{Value, json};

use crate::fixture::{QueueFixture, named, payload, worker};

/// Runs a command on this namespace.
fn sandhog(fixture: &QueueFixture, words: &[&str]) -> Output {
    environment::sandhog_command()
        .args(words)
        .args(["--redis", fixture.space.url()])
        .args(["--namespace", fixture.space.namespace().as_str(), "--json"])
        // No engine is available here; other suites test the doctor's report about images and
        // sandboxes.
        .env("SANDHOG_SANDBOX_ENGINE", "unix:///nowhere/engine.sock")
        .output()
        .expect("sandhog starts")
}

/// Runs a command that must exit with this code, and returns the lines that it prints.
fn lines(fixture: &QueueFixture, words: &[&str], code: i32) -> Vec<Value> {
    let output = sandhog(fixture, words);
    assert_eq!(output.status.code(), Some(code), "{words:?}: {output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

impl QueueFixture {
    /// Submits jobs of a tenant and makes each a dead letter for this reason.
    async fn make_dead_letters(&self, tenant: &str, reason: &str, ids: &[&str]) {
        for id in ids {
            let routing = Routing {
                tenant: tenant.parse().unwrap(),
                ..named(id)
            };
            self.ready(&routing).await;
            let lease = self.bound(&worker("one")).await.lease;
            let settlement = Settlement::DeadLetter {
                result: payload(),
                outcome: Outcome::Lost,
                reason: reason.into(),
                error: "enough".into(),
            };
            let _settled = self.queue.finish(&lease, settlement).await.unwrap();
        }
    }
}

#[tokio::test]
async fn dead_letters_by_command() {
    let fixture = QueueFixture::shared("dead-command").await;
    fixture
        .make_dead_letters("acme", "attempts_lost", &["a", "b", "c"])
        .await;
    fixture
        .make_dead_letters("other", "model_not_loaded", &["d"])
        .await;
    let ids = |listed: Vec<Value>| -> Vec<String> {
        let ids = listed
            .iter()
            .map(|letter| letter["id"].as_str().unwrap().to_owned());
        ids.collect()
    };
    let listed = lines(&fixture, &["dead", "list"], 0);
    assert_eq!(listed[0]["reason"], "model_not_loaded");
    assert_eq!(ids(listed), ["d", "c", "b", "a"], "the newest first");
    let some = ["dead", "list", "--tenant", "acme", "--limit", "2"];
    assert_eq!(ids(lines(&fixture, &some, 0)), ["c", "b"]);
    let some = ["dead", "list", "--reason", "model_not_loaded"];
    assert_eq!(ids(lines(&fixture, &some, 0)), ["d"]);

    let shown = &lines(&fixture, &["dead", "show", "a"], 0)[0];
    assert_eq!(shown["attempts"], 1);
    assert_eq!(shown["job"]["code"], "print(6 * 7)");
    assert_eq!(
        sandhog(&fixture, &["dead", "show", "z"]).status.code(),
        Some(66)
    );

    let answered = lines(&fixture, &["dead", "requeue", "a"], 0);
    assert_eq!(
        answered[0],
        json!({"id": "a", "requeued": true, "why_not": null})
    );
    let a: JobId = "a".parse().unwrap();
    assert_eq!(fixture.state(&a).await, JobState::Queued);
    assert_eq!(fixture.bound(&worker("two")).await.lease.id, a);
    let answered = lines(&fixture, &["dead", "requeue", "a", "b"], 66);
    assert_eq!(answered[0]["why_not"], "is not a dead letter");
    assert_eq!(answered[1]["requeued"], true);

    let answered = lines(&fixture, &["dead", "drop", "c"], 0);
    assert_eq!(answered[0]["dropped"], true);
    let answered = lines(&fixture, &["dead", "requeue", "c"], 66);
    assert!(answered[0]["why_not"].is_string(), "{answered:?}");
    let answered = lines(&fixture, &["dead", "drop", "--tenant", "other"], 0);
    assert_eq!(answered[0], json!({"dropped": 1, "left": 0}));
    assert_eq!(lines(&fixture, &["dead", "list"], 0), [Value::Null; 0]);
    for words in [&["dead", "requeue"][..], &["dead", "drop"]] {
        let output = sandhog(&fixture, words);
        assert_eq!(output.status.code(), Some(64), "{words:?}: {output:?}");
    }
}

#[tokio::test]
async fn the_doctor_names_work_that_nobody_will_do() {
    let fixture = QueueFixture::shared("doctor").await;
    let routing = Routing {
        class: "a100+gpu".parse().unwrap(),
        ..Routing::default()
    };
    fixture.ready(&routing).await;
    fixture.ready(&routing).await;
    // The doctor may report other problems of this machine, so its exit code is not checked.
    let output = sandhog(&fixture, &["doctor"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let found: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let finding = found
        .iter()
        .find(|finding| finding["subject"] == "class a100+gpu");
    let finding = finding.unwrap_or_else(|| panic!("{found:?}"));
    assert_eq!(finding["health"], "warn");
    assert_eq!(finding["detail"], "2 ready, and no live worker serves it");
    assert!(finding["hint"].as_str().unwrap().contains("worker.tags"));
}
