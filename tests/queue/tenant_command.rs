//! The commands `sandhog tenant`, `sandhog pause` and `sandhog resume`, from their arguments to
//! their effect on the queue.

use std::process::Output;

use sandhog_core::submission::Routing;
use sandhog_testkit::environment;
use serde_json::{Value, json};

use crate::fixture::{LEASE, QueueFixture, worker};

/// Runs a command on this namespace.
fn sandhog(fixture: &QueueFixture, words: &[&str]) -> Output {
    environment::sandhog_command()
        .args(words)
        .args(["--redis", fixture.space.url()])
        .args(["--namespace", fixture.space.namespace().as_str(), "--json"])
        .output()
        .expect("sandhog starts")
}

/// Runs a command that must succeed, and returns the one line that it prints.
fn answer(fixture: &QueueFixture, words: &[&str]) -> Value {
    let output = sandhog(fixture, words);
    assert!(output.status.success(), "{words:?}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{words:?}: {e}: {output:?}"))
}

#[tokio::test]
async fn a_tenants_settings_by_command() {
    let fixture = QueueFixture::shared("tenant-command").await;
    let set = [
        "tenant",
        "set",
        "acme",
        "--weight",
        "2.5",
        "--max-running",
        "1",
        "--rate",
        "100",
    ];
    assert_eq!(
        answer(&fixture, &set),
        json!({"tenant": "acme", "done": "set"})
    );
    let routing = Routing {
        tenant: "acme".parse().unwrap(),
        ..Routing::default()
    };
    for _ in 0..3 {
        fixture.ready(&routing).await;
    }
    assert!(fixture.claim(&worker("one")).await.is_some());
    assert!(fixture.claim(&worker("one")).await.is_none());
    let want = json!({
        "tenant": "acme", "weight": 2.5, "max_running": 1, "rate_per_s": 100.0,
        "burst": null, "max_queued": null,
        "max_retained": null, "paused": false, "running": 1, "ready": 2, "retained_bytes": 0,
    });
    assert_eq!(answer(&fixture, &["tenant", "show", "acme"]), want);
    answer(&fixture, &["tenant", "pause", "acme"]);
    answer(
        &fixture,
        &[
            "tenant",
            "set",
            "acme",
            "--max-running",
            "none",
            "--max-queued",
            "9",
            "--max-retained",
            "64MiB",
        ],
    );
    let listed = answer(&fixture, &["tenant", "list"]);
    assert_eq!(listed["paused"], true);
    assert_eq!(listed["max_queued"], 9);
    assert_eq!(listed["max_retained"], 64 << 20);
    assert_eq!(listed["max_running"], Value::Null);
    answer(&fixture, &["tenant", "remove", "acme"]);
    let empty = sandhog(&fixture, &["tenant", "list"]);
    assert!(
        empty.status.success() && empty.stdout.is_empty(),
        "{empty:?}"
    );

    for words in [
        &["tenant", "set", "acme"][..],
        &["tenant", "set", "acme", "--rate", "0"],
        &["tenant", "set", "acme", "--max-retained", "64"],
        &["tenant", "set", "not a name", "--rate", "1"],
        &["tenant", "pause"],
    ] {
        let output = sandhog(&fixture, words);
        assert_eq!(output.status.code(), Some(64), "{words:?}: {output:?}");
    }
}

#[tokio::test]
async fn a_queue_is_paused_and_resumed_by_command() {
    let fixture = QueueFixture::shared("pause-command").await;
    fixture.ready(&Routing::default()).await;
    assert_eq!(answer(&fixture, &["pause"])["done"], "paused");
    assert_eq!(answer(&fixture, &["status"])["paused"], true);
    assert!(fixture.claim(&worker("one")).await.is_none());
    assert_eq!(answer(&fixture, &["status"])["classes"][0]["held_back"], 1);
    assert_eq!(answer(&fixture, &["resume"])["done"], "resumed");
    fixture.queue.maintain_fully(LEASE, 3).await.unwrap();
    assert!(fixture.claim(&worker("one")).await.is_some());
}
