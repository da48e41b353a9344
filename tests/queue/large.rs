//! Intake entries that must not harm the worker that reads them: too large, with too many fields,
//! or deadly.

use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use sandhog_core::id::JobId;
use sandhog_core::outcome::Outcome;
use sandhog_core::units::Millis;
use sandhog_queue::AdmitReply;
use sandhog_testkit::noop::NoopSpec;
use sandhog_testkit::private_redis::PrivateRedis;

use crate::fixture::{CAP, QueueFixture, payload, worker};

const MIB: usize = 1 << 20;

/// Name of the case, fields of the entry, and the job's own id if its result is stored under that.
type LargeCase<'a> = (&'a str, Vec<(&'a str, &'a [u8])>, Option<&'a str>);

#[tokio::test]
async fn a_large_entry_is_rejected_and_only_an_excerpt_leaves_redis() {
    let mut fixture = QueueFixture::shared("large").await;
    let job = payload();
    let job = job.as_slice();
    let padding = vec![b'x'; 3 * MIB];
    let long_name = vec![b'n'; 300];
    let many: Vec<String> = (0..20_000).map(|n| format!("f{n}")).collect();
    let mut fields: Vec<(&str, &[u8])> = vec![("job", job), ("id", b"many-fields")];
    fields.extend(many.iter().map(|name| (name.as_str(), &b""[..])));
    let cases: Vec<LargeCase<'_>> = vec![
        ("payload", vec![("job", &padding)], None),
        (
            "ignored field",
            vec![("x", &padding), ("job", job), ("id", b"mine")],
            Some("mine"),
        ),
        ("many fields", fields, Some("many-fields")),
        ("long id", vec![("id", &long_name), ("job", &padding)], None),
        ("large id", vec![("id", &padding), ("job", job)], None),
        ("large name", vec![("job", job), ("reply", &padding)], None),
    ];
    for (case, fields, id) in &cases {
        let entry = fixture.space.add(fields);
        let mut reader = fixture.queue.intake_reader(&worker("one")).await.unwrap();
        let entries = reader.next(64, Duration::ZERO).await.unwrap();
        let kept: usize = entries[0]
            .fields
            .iter()
            .map(|(k, v)| k.len() + v.len())
            .sum();
        assert!(kept < 300, "case {case}: {kept} bytes left redis");
        drop(reader);
        let abandoned: JobId = id.map_or(entry, |id| id.parse().unwrap());
        let mut other = fixture.queue.intake_reader(&worker("two")).await.unwrap();
        let again = other.recover(Millis(0), 64).await.unwrap();
        let replies = fixture.settle_entries(again).await;
        assert_eq!(
            replies,
            [AdmitReply::Rejected(abandoned.clone())],
            "case {case}"
        );
        let result = fixture.result(&abandoned).await;
        assert_eq!(result.outcome, Outcome::Rejected, "case {case}");
        let error = result.error.unwrap();
        assert_eq!(
            error.code, "payload_too_large",
            "case {case}: {}",
            error.message
        );
        let dead = fixture.queue.keys().dead();
        let letter = fixture.space.stream_now(&dead).pop().unwrap();
        assert_eq!(letter.text("id"), abandoned.as_str(), "case {case}");
    }
}

#[tokio::test]
async fn a_batch_has_a_bounded_number_of_bytes() {
    let mut fixture = QueueFixture::shared("large-batch").await;
    let padding = vec![b'x'; CAP.as_usize() - 100];
    for _ in 0..9 {
        fixture.space.add(&[("job", &payload()), ("x", &padding)]);
    }
    let mut reader = fixture.queue.intake_reader(&worker("one")).await.unwrap();
    let mut counts = Vec::new();
    loop {
        let entries = reader.next(64, Duration::ZERO).await.unwrap();
        if entries.is_empty() {
            break;
        }
        counts.push(entries.len());
        fixture.settle_entries(entries).await;
    }
    assert_eq!(counts, [4, 4, 1]);
}

#[tokio::test]
async fn an_entry_that_three_admitters_did_not_settle_is_rejected() {
    let fixture = QueueFixture::shared("deadly").await;
    let id = fixture.submit(&crate::fixture::named("deadly")).await;
    let mut first = fixture.queue.intake_reader(&worker("w0")).await.unwrap();
    assert_eq!(first.next(64, Duration::ZERO).await.unwrap().len(), 1);
    for n in 1..3 {
        let mut next = (fixture.queue.intake_reader(&worker(&format!("w{n}"))).await).unwrap();
        let entries = next.recover(Millis(0), 64).await.unwrap();
        assert!(entries[0].parse(CAP).is_ok(), "delivery {n}");
    }
    let mut last = fixture.queue.intake_reader(&worker("w3")).await.unwrap();
    let entries = last.recover(Millis(0), 64).await.unwrap();
    assert_eq!(
        fixture.settle_entries(entries).await,
        [AdmitReply::Rejected(id.clone())]
    );
    let error = fixture.result(&id).await.error.unwrap();
    assert_eq!(error.code, "not_admitted");
    assert_eq!(
        error.message,
        "3 workers were given the entry and none admitted it"
    );
}

#[tokio::test]
async fn a_worker_that_restarts_under_its_name_counts_what_it_died_of() {
    let fixture = QueueFixture::shared("deadly-name").await;
    let id = fixture.submit(&crate::fixture::named("deadly")).await;
    for n in 0..3 {
        let mut reader = fixture.queue.intake_reader(&worker("one")).await.unwrap();
        let entries = reader.next(64, Duration::ZERO).await.unwrap();
        assert!(entries[0].parse(CAP).is_ok(), "start {n}");
        // Dropping the reader stands for the death of the process. A live process that only failed
        // to settle gets the entry again when its read is repeated, and that is not counted.
        drop(reader);
    }
    assert_eq!(fixture.admit_as("one").await, [AdmitReply::Rejected(id)]);
}

/// Limit of the data segment of the worker in these tests, in bytes.
const DATA: usize = 160 * MIB;

#[tokio::test]
async fn a_worker_with_little_memory_survives_large_entries() {
    let redis = PrivateRedis::start(&["--appendonly", "no", "--maxmemory", "2gb"]);
    let mut fixture = QueueFixture::on(&redis, "large-worker").await;
    let log = tempfile::tempdir().unwrap();
    let spec = NoopSpec {
        program: env!("CARGO_BIN_EXE_sandhog-noop-worker").into(),
        url: redis.url(),
        namespace: fixture.space.namespace().to_string(),
        slots: 2,
        lease: Duration::from_secs(10),
        most_sleep: Duration::ZERO,
    };
    let mut small = spec.start("small", &log.path().join("log"));
    let limited = Command::new("prlimit")
        .args(["--pid", &small.pid().to_string()])
        .arg(format!("--data={DATA}"))
        .stdin(Stdio::null())
        .status()
        .unwrap();
    assert!(limited.success());

    // Larger than Redis accepts: Redis rejects it before reading it and closes the connection.
    let huge = vec![b'x'; 65 * MIB];
    let mut refused = redis.client().get_connection().unwrap();
    let mut add = redis::cmd("XADD");
    add.arg(fixture.queue.keys().jobs())
        .arg("*")
        .arg("job")
        .arg(&huge);
    let error = add.query::<String>(&mut refused).unwrap_err();
    let text = error.to_string();
    assert!(
        error.is_io_error() || text.contains("invalid bulk length"),
        "{text}"
    );

    let padding = &huge[..DATA / 4];
    let job = payload();
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(fixture.space.add(&[("job", &job), ("ignored", padding)]));
        let payload = [b"{\"image\":\"", padding].concat();
        ids.push(fixture.space.add(&[("job", &payload)]));
    }
    let good = fixture.space.add(&[("job", &job)]);
    for id in &ids {
        let result = fixture.space.result(id);
        assert_eq!(result.outcome, Outcome::Rejected);
        assert_eq!(result.error.unwrap().code, "payload_too_large");
    }
    assert_eq!(fixture.space.result(&good).outcome, Outcome::Succeeded);
    assert!(small.ended().is_none(), "it lives");
    small.signal(Signal::SIGTERM);
    assert!(small.drain().success());
}

#[test]
fn every_redis_that_is_shipped_refuses_large_arguments() {
    let checkout = sandhog_testkit::environment::checkout();
    for (file, words) in [
        ("deploy/redis/redis.conf", "\nproto-max-bulk-len 64mb\n"),
        (
            "cli/src/embedded/redis.rs",
            "(\"--proto-max-bulk-len\", \"64mb\")",
        ),
        ("scripts/lib/setup.sh", "--proto-max-bulk-len 64mb"),
        ("scripts/lib/cgroup2-guest.sh", "--proto-max-bulk-len 64mb"),
    ] {
        let text = std::fs::read_to_string(checkout.join(file)).unwrap();
        assert!(text.contains(words), "{file} has no {words:?}");
    }
}

#[tokio::test]
async fn the_doctor_requires_a_bound_on_arguments() {
    let redis = PrivateRedis::start(&[]);
    let fixture = QueueFixture::on(&redis, "large-doctor").await;
    let _set: String = fixture
        .plain(&[
            "ACL", "SETUSER", "plain", "on", ">x", "~*", "+@all", "-config",
        ])
        .await;
    let strict = redis.url_of("plain", "x");
    for (most, url, health, detail) in [
        ("64mb", redis.url(), "ok", "at most 64MiB each"),
        (
            "512mb",
            redis.url(),
            "fail",
            "proto-max-bulk-len is 512MiB (want at most 64MiB)",
        ),
        (
            "64mb",
            strict,
            "warn",
            "proto-max-bulk-len is not known: this user may not read it",
        ),
    ] {
        let _set: String = fixture
            .plain(&["CONFIG", "SET", "proto-max-bulk-len", most])
            .await;
        let output = sandhog_testkit::environment::sandhog_command()
            .args(["doctor", "--json", "--redis", &url])
            .args(["--namespace", fixture.space.namespace().as_str()])
            .env("SANDHOG_SANDBOX_ENGINE", "unix:///nowhere/engine.sock")
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let finding = text
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
            .find(|finding| finding["subject"] == "redis arguments")
            .unwrap_or_else(|| panic!("{text}"));
        assert_eq!(
            (&finding["health"], &finding["detail"]),
            (&health.into(), &detail.into())
        );
    }
}
