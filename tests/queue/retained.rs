//! Memory in Redis that results occupy: large output is stored once, and the results of a tenant
//! are bounded.

use std::time::Duration;

use sandhog_core::blob::Blob;
use sandhog_core::id::JobId;
use sandhog_core::outcome::{JobResult, Outcome};
use sandhog_core::submission::Routing;
use sandhog_core::tenant_limits::{Change, TenantChange};
use sandhog_core::units::Millis;
use sandhog_core::wire::{self, Encoding};
use sandhog_producer::Client;
use sandhog_queue::{LogEntry, LogPosition, LogStream, RetryBudget, Settlement};
use sandhog_testkit::private_redis::PrivateRedis;

use crate::fixture::{QueueFixture, WAIT_TIMEOUT, success, worker};

/// Returns text of this many bytes, in lines.
fn text(bytes: usize) -> String {
    let mut text = "a line of output, as long as many are, with a number: 0123456789 0123456789\n"
        .repeat(bytes / 60);
    text.truncate(bytes);
    text
}

/// Returns the settlement of a job that printed this text.
fn printed(id: &JobId, text: &str) -> Settlement {
    let result = JobResult {
        stdout: Blob::from(text),
        exit_code: Some(0),
        ..JobResult::bare(id.clone(), Outcome::Succeeded)
    };
    Settlement::Publish {
        result: wire::encode(&result, Encoding::Json),
        outcome: Outcome::Succeeded,
    }
}

impl QueueFixture {
    /// Runs one job that prints `text`, to its log as well.
    async fn prints(&self, routing: &Routing, text: &str) -> JobId {
        let id = self.ready(routing).await;
        let lease = self.bound(&worker("one")).await.lease;
        for chunk in text.as_bytes().chunks(64 << 10) {
            assert!(
                self.queue
                    .log(&lease, LogStream::Stdout, chunk)
                    .await
                    .unwrap()
            );
        }
        let _settled = self.queue.finish(&lease, printed(&id, text)).await.unwrap();
        id
    }

    async fn used_memory(&self) -> u64 {
        let info: String = self.plain(&["INFO", "memory"]).await;
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix("used_memory:"));
        line.unwrap().trim().parse().unwrap()
    }

    async fn max_retained(&self, tenant: &str, limit: &str) {
        let change = TenantChange {
            max_retained: limit.parse::<Change<_>>().unwrap(),
            ..TenantChange::default()
        };
        self.queue
            .set_tenant(&tenant.parse().unwrap(), &change)
            .await
            .unwrap();
    }
}

fn of_tenant(tenant: &str) -> Routing {
    Routing {
        tenant: tenant.parse().unwrap(),
        ..Routing::default()
    }
}

/// The only source of this figure: run the test with `--nocapture`; `scripts/bench` does not
/// measure it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_jobs_of_500_kb_leave_at_most_1_2_times_what_they_printed() {
    const JOBS: u64 = 300;
    const BYTES: usize = 500_000;
    let redis = PrivateRedis::start(&["--appendonly", "no"]);
    let fixture = QueueFixture::on(&redis, "stored-once").await;
    let output = text(BYTES);
    let batch = Routing {
        reply: Some("batch".parse().unwrap()),
        ..Routing::default()
    };
    let mut replies = fixture
        .queue
        .reply_reader(&"batch".parse().unwrap())
        .await
        .unwrap();
    // The first use of a command and of a script allocates memory in the server once.
    fixture.prints(&Routing::default(), "once").await;
    let before = fixture.used_memory().await;
    let client = Client::from_queue(fixture.queue.clone());
    for n in 0..JOBS {
        let id = fixture.ready(&batch).await;
        let lease = fixture.bound(&worker("one")).await.lease;
        let mut follow = client.follow(&id).await.unwrap();
        let reader = tokio::spawn(async move {
            let mut read = Vec::new();
            while let Some(chunk) = follow.next().await.unwrap() {
                read.extend(chunk.data);
            }
            read
        });
        for chunk in output.as_bytes().chunks(64 << 10) {
            let _held = fixture
                .queue
                .log(&lease, LogStream::Stdout, chunk)
                .await
                .unwrap();
        }
        let _settled = fixture
            .queue
            .finish(&lease, printed(&id, &output))
            .await
            .unwrap();
        if n % 50 == 0 {
            let read = reader.await.unwrap();
            assert_eq!(
                read,
                output.as_bytes(),
                "the log equals the output of the result"
            );
            assert_eq!(
                fixture.result(&id).await.stdout,
                Blob::from(output.as_str())
            );
            let told = replies.next(WAIT_TIMEOUT).await.unwrap();
            let result = fixture.queue.result(&id).await.unwrap();
            assert_eq!(told.replies.last().map(|told| told.id.clone()), Some(id));
            assert_eq!(
                told.replies.last().map(|told| told.result.clone()),
                result,
                "the reply stream has the same bytes"
            );
        } else {
            reader.await.unwrap();
        }
    }
    let printed = JOBS * BYTES as u64;
    let left = fixture.used_memory().await - before;
    let ratio = left as f64 / printed as f64;
    println!("{JOBS} jobs of {BYTES} bytes left {left} bytes, {ratio:.3} times what they printed");
    assert!(ratio <= 1.2, "{ratio}");
}

#[tokio::test]
async fn a_small_log_is_kept_and_a_large_one_ends_soon() {
    let fixture = QueueFixture::shared("logs-end").await;
    let small = fixture.prints(&Routing::default(), "a few words\n").await;
    let life = async |id: &JobId| -> i64 {
        fixture
            .plain(&["PTTL", &fixture.queue.keys().log(id)])
            .await
    };
    assert!(life(&small).await > 80_000_000);
    let output = text(40_000);
    let large = fixture.prints(&Routing::default(), &output).await;
    let left = life(&large).await;
    assert!(left > 0 && left <= 60_000, "{left}");
    // A client that follows the log now reads all of it, including its end.
    let mut reader = fixture.queue.log_reader(&large).await.unwrap();
    let entries = reader
        .next(&LogPosition::start(), Duration::ZERO)
        .await
        .unwrap();
    assert!(matches!(
        entries.last(),
        Some(LogEntry::End { outcome: Some(_) })
    ));
    // If many jobs end, older logs are removed and the newest remains.
    let output = text(3 << 20);
    let first = fixture.prints(&Routing::default(), &output).await;
    let second = fixture.prints(&Routing::default(), &output).await;
    assert_eq!(life(&first).await, -2, "the log is gone");
    assert!(life(&second).await > 0);
    assert_eq!(
        fixture.result(&first).await.stdout,
        Blob::from(output.as_str()),
        "the result holds the output"
    );
}

#[tokio::test]
async fn a_reply_stream_holds_many_small_results_and_some_large_ones() {
    let fixture = QueueFixture::shared("bulk").await;
    let routing = Routing {
        reply: Some("mixed".parse().unwrap()),
        ..Routing::default()
    };
    let key = fixture.queue.keys().reply(&"mixed".parse().unwrap());
    let output = text(5 << 20);
    for _ in 0..3 {
        fixture.prints(&routing, "small").await;
    }
    fixture.prints(&routing, &output).await;
    fixture.prints(&routing, &output).await;
    let length: u64 = fixture.plain(&["XLEN", &key]).await;
    assert_eq!(length, 5, "all entries, because they are below the bound");
    fixture.prints(&routing, &output).await;
    let length: u64 = fixture.plain(&["XLEN", &key]).await;
    assert_eq!(
        length, 2,
        "the first large entry and all before it are gone"
    );
    // A single result above the bound is kept for its reader.
    let id = fixture.prints(&routing, &text(14 << 20)).await;
    let mut reader = fixture
        .queue
        .reply_reader(&"mixed".parse().unwrap())
        .await
        .unwrap();
    let batch = reader.next(Duration::ZERO).await.unwrap();
    assert_eq!(batch.replies.len(), 1);
    assert_eq!(batch.replies[0].id, id);
}

#[tokio::test]
async fn what_a_tenant_has_too_much_loses_its_output_and_says_so() {
    let fixture = QueueFixture::shared("max-retained").await;
    fixture.max_retained("greedy", "16MiB").await;
    let (greedy, modest) = (of_tenant("greedy"), of_tenant("modest"));
    let output = text(6 << 20);
    let small = fixture.prints(&greedy, "a few words\n").await;
    let first = fixture.prints(&greedy, &output).await;
    let others = fixture.prints(&modest, &output).await;
    let second = fixture.prints(&greedy, &output).await;
    let tenant = fixture
        .queue
        .tenant(&"greedy".parse().unwrap())
        .await
        .unwrap();
    assert!(tenant.retained.0 > 12 << 20, "{tenant:?}");
    let life: i64 = fixture
        .plain(&["PTTL", &fixture.queue.keys().result(&first)])
        .await;
    let third = fixture.prints(&greedy, &output).await;

    let short = fixture.result(&first).await;
    assert_eq!(short.outcome, Outcome::Succeeded);
    assert_eq!(short.error.as_ref().unwrap().code, "output_dropped");
    assert!(short.stdout.is_empty() && short.truncated.stdout && short.truncated.stderr);
    assert_eq!(
        Some(short.finished_at_ms),
        fixture.record(&first).await.finished_at
    );
    let still: i64 = fixture
        .plain(&["PTTL", &fixture.queue.keys().result(&first)])
        .await;
    assert!(
        still > 0 && still <= life,
        "the time to live is not extended"
    );
    for id in [&others, &second, &third] {
        assert_eq!(fixture.result(id).await.stdout, Blob::from(output.as_str()));
    }
    assert_eq!(
        fixture.result(&small).await.stdout,
        Blob::from("a few words\n")
    );
    let tenant = fixture
        .queue
        .tenant(&"greedy".parse().unwrap())
        .await
        .unwrap();
    assert!(tenant.retained.0 <= 16 << 20, "{tenant:?}");
    assert_eq!(fixture.counter("outputs_dropped").await, 1);
    // A single result above the limit is kept for its waiter.
    let alone = fixture.prints(&greedy, &text(20 << 20)).await;
    assert_eq!(fixture.result(&alone).await.stdout.0.len(), 20 << 20);
    assert!(fixture.result(&second).await.error.is_some());
}

#[tokio::test]
async fn seven_large_results_do_not_fill_redis() {
    let redis = PrivateRedis::start(&["--appendonly", "no"]);
    let fixture = QueueFixture::on(&redis, "nearly-full").await;
    let limit = fixture.used_memory().await + (96 << 20);
    let _set: String = fixture
        .plain(&["CONFIG", "SET", "maxmemory", &limit.to_string()])
        .await;
    let mine = fixture.prints(&of_tenant("small"), &text(1 << 20)).await;
    let mut ids = Vec::new();
    for _ in 0..7 {
        ids.push(fixture.prints(&of_tenant("large"), &text(14 << 20)).await);
    }
    assert!(fixture.used_memory().await < limit);
    fixture.submit(&Routing::default()).await;
    let newest = fixture.result(ids.last().unwrap()).await;
    assert_eq!(newest.stdout.0.len(), 14 << 20);
    let oldest = fixture.result(&ids[0]).await;
    assert_eq!(oldest.error.unwrap().code, "output_dropped");
    assert_eq!(
        fixture.result(&mine).await.stdout.0.len(),
        1 << 20,
        "the tenant with the most retained bytes loses output"
    );
}

#[tokio::test]
async fn a_large_result_is_kept_for_a_week_at_most() {
    let fixture = QueueFixture::shared("kept-long").await;
    let routing = Routing {
        keep: Millis(86_400_000 * 400),
        ..Routing::default()
    };
    for (bytes, days) in [(1_000, 400), (2 << 20, 7)] {
        let id = fixture.prints(&routing, &text(bytes)).await;
        for key in [
            fixture.queue.keys().result(&id),
            fixture.queue.keys().job(&id),
        ] {
            let life: i64 = fixture.plain(&["PTTL", &key]).await;
            let most = days * 86_400_000;
            assert!(life <= most && life > most - 600_000, "{key}: {life}");
        }
    }
}

#[tokio::test]
async fn what_attempts_printed_that_are_tried_again_does_not_add_up() {
    let fixture = QueueFixture::shared("attempts-logs").await;
    let id = fixture.ready(&Routing::default()).await;
    let chunk = text(64 << 10);
    for _ in 0..5 {
        let lease = fixture.bound(&worker("one")).await.lease;
        for _ in 0..32 {
            fixture
                .queue
                .log(&lease, LogStream::Stdout, chunk.as_bytes())
                .await
                .unwrap();
        }
        let again = Settlement::Retry {
            after: Millis(0),
            why: "once more".into(),
            counts_as: RetryBudget::Attempt,
        };
        let _settled = fixture.queue.finish(&lease, again).await.unwrap();
    }
    let log = fixture.queue.keys().log(&id);
    let bytes: u64 = fixture.plain(&["MEMORY", "USAGE", &log]).await;
    assert!(bytes < 2 << 20, "{bytes}");
    let lease = fixture.bound(&worker("one")).await.lease;
    let _settled = fixture.queue.finish(&lease, success(&id)).await.unwrap();
}
