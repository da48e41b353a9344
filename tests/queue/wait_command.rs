//! The commands `sandhog wait` and `sandhog logs -f`: they end in every case, and explain why a job
//! waits.

use std::io::Write as _;
use std::process::{Output, Stdio};

use sandhog_core::id::JobId;
use sandhog_core::outcome::Outcome;
use sandhog_core::submission::Routing;
use sandhog_core::units::Millis;
use sandhog_testkit::environment;
use sandhog_testkit::page::{PASSWORD, permissions};
use sandhog_testkit::private_redis::PrivateRedis;

use crate::fixture::{QueueFixture, facts, named, success, worker};

/// Runs a command on this namespace, with `input` on its standard input.
fn sandhog_at(url: &str, fixture: &QueueFixture, words: &[&str], input: &str) -> Output {
    let mut command = environment::sandhog_command();
    command
        .args(words)
        .args(["--redis", url, "--namespace"])
        .arg(fixture.space.namespace().as_str())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("sandhog starts");
    let mut stdin = child.stdin.take().expect("standard input is a pipe");
    stdin.write_all(input.as_bytes()).expect("it reads");
    drop(stdin);
    child.wait_with_output().expect("sandhog ends")
}

fn sandhog(fixture: &QueueFixture, words: &[&str]) -> Output {
    sandhog_at(fixture.space.url(), fixture, words, "")
}

fn told(output: &Output) -> (Option<i32>, String, String) {
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

impl QueueFixture {
    /// Runs one small job to its end.
    async fn done(&self, routing: &Routing) -> JobId {
        let id = self.ready(routing).await;
        let lease = self.bound(&worker("one")).await.lease;
        let _settled = self.queue.finish(&lease, success(&id)).await.unwrap();
        id
    }

    async fn remove(&self, keys: &[String]) {
        let mut words = vec!["DEL"];
        words.extend(keys.iter().map(String::as_str));
        let _removed: i64 = self.plain(&words).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_nobody_knows_is_not_waited_for() {
    let fixture = QueueFixture::shared("wait-unknown").await;
    // Expired: neither a record nor a result is left.
    let expired = fixture.done(&Routing::default()).await;
    let keys = fixture.queue.keys();
    fixture
        .remove(&[keys.job(&expired), keys.result(&expired)])
        .await;
    for id in ["never-was", expired.as_str()] {
        for words in [&["wait", id][..], &["logs", id], &["logs", "-f", id]] {
            let (code, out, err) = told(&sandhog(&fixture, words));
            assert_eq!((code, out.as_str()), (Some(66), ""), "{words:?}: {err}");
            assert!(err.contains(&format!("no job {id} is known")), "{err}");
        }
    }
    // A job in the intake that no worker has admitted yet is not unknown.
    let waiting = fixture.submit(&named("mine")).await;
    let words = ["wait", waiting.as_str(), "--timeout", "3s"];
    assert_eq!(sandhog(&fixture, &words).status.code(), Some(75));
    fixture.admit().await;
    let words = ["wait", waiting.as_str(), "--timeout", "3s"];
    assert_eq!(sandhog(&fixture, &words).status.code(), Some(75));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_that_began_before_the_result_expired_gets_it() {
    let fixture = QueueFixture::shared("wait-early").await;
    let short = Routing {
        keep: Millis(0),
        ..Routing::default()
    };
    let id = fixture.ready(&short).await;
    let (url, namespace) = (
        fixture.space.url().to_owned(),
        fixture.space.namespace().clone(),
    );
    let waited = id.clone();
    let waiting = tokio::task::spawn_blocking(move || {
        environment::sandhog_command()
            .args(["wait", waited.as_str(), "--json", "--redis", &url])
            .args(["--namespace", namespace.as_str()])
            .output()
            .unwrap()
    });
    let is_waiting = async || {
        let clients: String = fixture.plain(&["CLIENT", "LIST"]).await;
        clients.contains("cmd=blmove")
    };
    while !is_waiting().await {
        tokio::task::yield_now().await;
    }
    let lease = fixture.bound(&worker("one")).await.lease;
    let _settled = fixture.queue.finish(&lease, success(&id)).await.unwrap();
    let (code, out, err) = told(&waiting.await.unwrap());
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains(id.as_str()), "{out}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_are_read_from_standard_input() {
    let fixture = QueueFixture::shared("wait-stdin").await;
    let (a, b) = (
        fixture.done(&named("a")).await,
        fixture.done(&named("b")).await,
    );
    let lines = format!("{a}\n\n{{\"id\":\"{b}\"}}\n{a}\n");
    let output = sandhog_at(fixture.space.url(), &fixture, &["wait", "-"], &lines);
    let (code, out, err) = told(&output);
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(out.lines().count(), 2, "each job is printed once: {out}");
    let lines = format!("{a}\nnever-was\n{b}\n");
    let output = sandhog_at(fixture.space.url(), &fixture, &["wait", "-"], &lines);
    let (code, out, err) = told(&output);
    assert_eq!((code, out.lines().count()), (Some(66), 2), "{err}");
    let output = sandhog_at(fixture.space.url(), &fixture, &["wait", "-"], "two words\n");
    assert_eq!(output.status.code(), Some(64));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_stream_is_waited_for_though_it_lost_results() {
    let fixture = QueueFixture::shared("wait-reply").await;
    let routing = Routing {
        reply: Some("batch".parse().unwrap()),
        ..Routing::default()
    };
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(fixture.done(&routing).await.to_string());
    }
    let words = ["wait", "--reply", "batch", "--count", "5", "--json"];
    let (code, out, err) = told(&sandhog(&fixture, &words));
    assert_eq!((code, out.lines().count()), (Some(0), 5), "{err}");
    let key = fixture.queue.keys().reply(&"batch".parse().unwrap());
    let _trimmed: i64 = fixture.plain(&["XTRIM", &key, "MAXLEN", "2"]).await;
    let lines = ids.join("\n");
    let words = ["wait", "--reply", "batch", "--json", "-"];
    let output = sandhog_at(fixture.space.url(), &fixture, &words, &lines);
    let (code, out, err) = told(&output);
    assert_eq!((code, out.lines().count()), (Some(0), 5), "{err}");
    for id in &ids {
        assert!(out.contains(id), "{id}: {out}");
    }
    let words = ["wait", "--reply", "batch", "--count", "5"];
    let (code, out, err) = told(&sandhog(&fixture, &words));
    assert_eq!((code, out.lines().count()), (Some(1), 2), "{err}");
    assert!(err.contains("3 results left reply stream batch"), "{err}");
    let unknown = ["wait", "--reply", "batch", "never-was"];
    assert_eq!(sandhog(&fixture, &unknown).status.code(), Some(66));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_without_rights_waits_in_silence() {
    let redis = PrivateRedis::start(&[]);
    let fixture = QueueFixture::on(&redis, "wait-reader").await;
    for line in permissions(&fixture.space) {
        let words: Vec<&str> = line.iter().map(String::as_str).collect();
        let _set: String = fixture.plain(&words).await;
    }
    let url = redis.url_of("reader", PASSWORD);
    let words = ["wait", "never-was", "--timeout", "3s"];
    let (code, _out, err) = told(&sandhog_at(&url, &fixture, &words, ""));
    assert_eq!(code, Some(75), "{err}");
    assert!(!err.contains("waiting:"), "{err}");
    let id = fixture.done(&Routing::default()).await;
    let words = ["wait", id.as_str()];
    assert_eq!(told(&sandhog_at(&url, &fixture, &words, "")).0, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_that_are_followed_end_as_their_job_did() {
    let fixture = QueueFixture::shared("logs-ending").await;
    let id = fixture.ready(&Routing::default()).await;
    fixture.queue.cancel_now(&id).await.unwrap();
    let (code, _out, err) = told(&sandhog(&fixture, &["logs", "-f", id.as_str()]));
    assert_eq!(fixture.result(&id).await.outcome, Outcome::Cancelled);
    assert_eq!(code, Some(119), "{err}");
    assert!(err.contains("cancelled"), "{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_says_why_its_job_does_not_run() {
    let redis = PrivateRedis::start(&[]);
    let fixture = QueueFixture::on(&redis, "wait-why").await;
    let gpu = Routing {
        class: "gpu".parse().unwrap(),
        ..Routing::default()
    };
    let id = fixture.submit(&gpu).await;
    let why = |words: &[&str]| {
        let mut all = vec!["wait", id.as_str(), "--timeout", "4s"];
        all.extend(words);
        told(&sandhog(&fixture, &all)).2
    };
    let err = why(&[]);
    let line = "sandhog: waiting: no worker is running\n";
    assert_eq!(err.matches(line).count(), 1, "{err}");
    let _set: String = fixture
        .plain(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"])
        .await;
    assert!(why(&[]).contains("waiting: no worker can start: redis evicts keys"));
    fixture.admit().await;
    fixture
        .queue
        .announce(&facts("one", &["cpu"]), Millis(600_000))
        .await
        .unwrap();
    let err = why(&[]);
    assert!(
        err.contains("sandhog: waiting: no live worker serves class gpu (missing: tags)"),
        "{err}"
    );
    let json = why(&["--json"]);
    assert!(json.contains(r#"{"waiting":{"#), "{json}");
    assert!(json.contains(r#""code":"no_tags""#), "{json}");
    assert!(
        why(&["--quiet"])
            .lines()
            .all(|line| !line.contains("waiting:"))
    );
    fixture.queue.pause().await.unwrap();
    assert!(why(&[]).contains("waiting: the queue is paused"));
}
