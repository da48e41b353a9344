//! Memory in Redis that results occupy: large output is stored once, and the results of a tenant
//! are bounded.

use std::time::Duration;

use sandhog_common::blob::Blob;
use sandhog_common::id::JobId;
use sandhog_common::outcome::{JobResult, Outcome};
use sandhog_common::queue::{LogEntry, LogPosition, LogStream, RetryBudget, Settlement};
use sandhog_common::submission::Routing;
use sandhog_common::tenancy::{Change, TenantChange};
use sandhog_common::units::Millis;
use sandhog_common::wire::{self, Encoding};
use sandhog_producer::Client;
use sandhog_tests::private_redis::PrivateRedis;

use crate::desk::{Desk, PATIENCE, success, worker};

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

impl Desk {
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
    let desk = Desk::on(&redis, "stored-once").await;
    let output = text(BYTES);
    let batch = Routing {
        reply: Some("batch".parse().unwrap()),
        ..Routing::default()
    };
    let mut replies = desk
        .queue
        .reply_reader(&"batch".parse().unwrap())
        .await
        .unwrap();
    // The first use of a command and of a script allocates memory in the server once.
    desk.prints(&Routing::default(), "once").await;
    let before = desk.used_memory().await;
    let client = Client::over(desk.queue.clone());
    for n in 0..JOBS {
        let id = desk.ready(&batch).await;
        let lease = desk.bound(&worker("one")).await.lease;
        let mut follow = client.follow(&id).await.unwrap();
        let reader = tokio::spawn(async move {
            let mut read = Vec::new();
            while let Some(chunk) = follow.next().await.unwrap() {
                read.extend(chunk.data);
            }
            read
        });
        for chunk in output.as_bytes().chunks(64 << 10) {
            let _held = desk
                .queue
                .log(&lease, LogStream::Stdout, chunk)
                .await
                .unwrap();
        }
        let _settled = desk
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
            assert_eq!(desk.result(&id).await.stdout, Blob::from(output.as_str()));
            let told = replies.next(PATIENCE).await.unwrap();
            let result = desk.queue.result(&id).await.unwrap();
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
    let left = desk.used_memory().await - before;
    let ratio = left as f64 / printed as f64;
    println!("{JOBS} jobs of {BYTES} bytes left {left} bytes, {ratio:.3} times what they printed");
    assert!(ratio <= 1.2, "{ratio}");
}

#[tokio::test]
async fn a_small_log_is_kept_and_a_large_one_ends_soon() {
    let desk = Desk::shared("logs-end").await;
    let small = desk.prints(&Routing::default(), "a few words\n").await;
    let life =
        async |id: &JobId| -> i64 { desk.plain(&["PTTL", &desk.queue.keys().log(id)]).await };
    assert!(life(&small).await > 80_000_000);
    let output = text(40_000);
    let large = desk.prints(&Routing::default(), &output).await;
    let left = life(&large).await;
    assert!(left > 0 && left <= 60_000, "{left}");
    // A client that follows the log now reads all of it, including its end.
    let mut reader = desk.queue.log_reader(&large).await.unwrap();
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
    let first = desk.prints(&Routing::default(), &output).await;
    let second = desk.prints(&Routing::default(), &output).await;
    assert_eq!(life(&first).await, -2, "the log is gone");
    assert!(life(&second).await > 0);
    assert_eq!(
        desk.result(&first).await.stdout,
        Blob::from(output.as_str()),
        "the result holds the output"
    );
}

#[tokio::test]
async fn a_reply_stream_holds_many_small_results_and_some_large_ones() {
    let desk = Desk::shared("bulk").await;
    let routing = Routing {
        reply: Some("mixed".parse().unwrap()),
        ..Routing::default()
    };
    let key = desk.queue.keys().reply(&"mixed".parse().unwrap());
    let output = text(5 << 20);
    for _ in 0..3 {
        desk.prints(&routing, "small").await;
    }
    desk.prints(&routing, &output).await;
    desk.prints(&routing, &output).await;
    let length: u64 = desk.plain(&["XLEN", &key]).await;
    assert_eq!(length, 5, "all entries, because they are below the bound");
    desk.prints(&routing, &output).await;
    let length: u64 = desk.plain(&["XLEN", &key]).await;
    assert_eq!(
        length, 2,
        "the first large entry and all before it are gone"
    );
    // A single result above the bound is kept for its reader.
    let id = desk.prints(&routing, &text(14 << 20)).await;
    let mut reader = desk
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
    let desk = Desk::shared("max-retained").await;
    desk.max_retained("greedy", "16MiB").await;
    let (greedy, modest) = (of_tenant("greedy"), of_tenant("modest"));
    let output = text(6 << 20);
    let small = desk.prints(&greedy, "a few words\n").await;
    let first = desk.prints(&greedy, &output).await;
    let others = desk.prints(&modest, &output).await;
    let second = desk.prints(&greedy, &output).await;
    let tenant = desk.queue.tenant(&"greedy".parse().unwrap()).await.unwrap();
    assert!(tenant.retained.0 > 12 << 20, "{tenant:?}");
    let life: i64 = desk
        .plain(&["PTTL", &desk.queue.keys().result(&first)])
        .await;
    let third = desk.prints(&greedy, &output).await;

    let short = desk.result(&first).await;
    assert_eq!(short.outcome, Outcome::Succeeded);
    assert_eq!(short.error.as_ref().unwrap().code, "output_dropped");
    assert!(short.stdout.is_empty() && short.truncated.stdout && short.truncated.stderr);
    assert_eq!(
        Some(short.finished_at_ms),
        desk.record(&first).await.finished_at
    );
    let still: i64 = desk
        .plain(&["PTTL", &desk.queue.keys().result(&first)])
        .await;
    assert!(
        still > 0 && still <= life,
        "the time to live is not extended"
    );
    for id in [&others, &second, &third] {
        assert_eq!(desk.result(id).await.stdout, Blob::from(output.as_str()));
    }
    assert_eq!(
        desk.result(&small).await.stdout,
        Blob::from("a few words\n")
    );
    let tenant = desk.queue.tenant(&"greedy".parse().unwrap()).await.unwrap();
    assert!(tenant.retained.0 <= 16 << 20, "{tenant:?}");
    assert_eq!(desk.counter("outputs_dropped").await, 1);
    // A single result above the limit is kept for its waiter.
    let alone = desk.prints(&greedy, &text(20 << 20)).await;
    assert_eq!(desk.result(&alone).await.stdout.0.len(), 20 << 20);
    assert!(desk.result(&second).await.error.is_some());
}

#[tokio::test]
async fn seven_large_results_do_not_fill_redis() {
    let redis = PrivateRedis::start(&["--appendonly", "no"]);
    let desk = Desk::on(&redis, "nearly-full").await;
    let limit = desk.used_memory().await + (96 << 20);
    let _set: String = desk
        .plain(&["CONFIG", "SET", "maxmemory", &limit.to_string()])
        .await;
    let mine = desk.prints(&of_tenant("small"), &text(1 << 20)).await;
    let mut ids = Vec::new();
    for _ in 0..7 {
        ids.push(desk.prints(&of_tenant("large"), &text(14 << 20)).await);
    }
    assert!(desk.used_memory().await < limit);
    desk.submit(&Routing::default()).await;
    let newest = desk.result(ids.last().unwrap()).await;
    assert_eq!(newest.stdout.0.len(), 14 << 20);
    let oldest = desk.result(&ids[0]).await;
    assert_eq!(oldest.error.unwrap().code, "output_dropped");
    assert_eq!(
        desk.result(&mine).await.stdout.0.len(),
        1 << 20,
        "the tenant with the most retained bytes loses output"
    );
}

#[tokio::test]
async fn a_large_result_is_kept_for_a_week_at_most() {
    let desk = Desk::shared("kept-long").await;
    let routing = Routing {
        keep: Millis(86_400_000 * 400),
        ..Routing::default()
    };
    for (bytes, days) in [(1_000, 400), (2 << 20, 7)] {
        let id = desk.prints(&routing, &text(bytes)).await;
        for key in [desk.queue.keys().result(&id), desk.queue.keys().job(&id)] {
            let life: i64 = desk.plain(&["PTTL", &key]).await;
            let most = days * 86_400_000;
            assert!(life <= most && life > most - 600_000, "{key}: {life}");
        }
    }
}

#[tokio::test]
async fn what_attempts_printed_that_are_tried_again_does_not_add_up() {
    let desk = Desk::shared("attempts-logs").await;
    let id = desk.ready(&Routing::default()).await;
    let chunk = text(64 << 10);
    for _ in 0..5 {
        let lease = desk.bound(&worker("one")).await.lease;
        for _ in 0..32 {
            desk.queue
                .log(&lease, LogStream::Stdout, chunk.as_bytes())
                .await
                .unwrap();
        }
        let again = Settlement::Retry {
            after: Millis(0),
            why: "once more".into(),
            counts_as: RetryBudget::Attempt,
        };
        let _settled = desk.queue.finish(&lease, again).await.unwrap();
    }
    let log = desk.queue.keys().log(&id);
    let bytes: u64 = desk.plain(&["MEMORY", "USAGE", &log]).await;
    assert!(bytes < 2 << 20, "{bytes}");
    let lease = desk.bound(&worker("one")).await.lease;
    let _settled = desk.queue.finish(&lease, success(&id)).await.unwrap();
}
