//! Checks of Redis and of the namespaces in it.

use std::time::{Duration, Instant};

use sandhog_config::{Settings, mask_url};
use sandhog_core::id::Namespace;
use sandhog_core::units::ByteCount;
use sandhog_queue::{ARGUMENT_BYTES_MAX, Lack, Queue, QueueError, Unroutable};

use super::Finding;
use crate::overclaim;
use sandhog_core::error_chain::error_chain;

/// Round-trip time to Redis above which every job becomes noticeably slower.
const SLOW_ROUND_TRIP: Duration = Duration::from_millis(20);

/// Number of round trips measured. The fastest counts, because other clients delay the others.
const LATENCY_SAMPLES: usize = 5;

/// Checks the configured Redis.
pub async fn check_redis(settings: &Settings, found: &mut (dyn FnMut(Finding) + Send)) {
    let queue = match Queue::connect(&settings.redis, &settings.namespace).await {
        Ok(queue) => queue,
        Err(error) => return found(failure_finding(&error)),
    };
    if let Err(error) = check_server(&queue, settings, found).await {
        return found(failure_finding(&error));
    }
    for namespace in &settings.worker.namespaces {
        if let Err(error) = check_other_namespace(settings, namespace, found).await {
            found(
                Finding::ok(&format!("namespace {namespace}"), error_chain(&error))
                    .fail(error.hint()),
            );
        }
    }
}

/// Checks a namespace other than the usual one. In a cluster it may be on another server, which
/// must not lose jobs either.
async fn check_other_namespace(
    settings: &Settings,
    namespace: &Namespace,
    found: &mut (dyn FnMut(Finding) + Send),
) -> Result<(), QueueError> {
    let queue = Queue::connect(&settings.redis, namespace).await?;
    queue.check().await?;
    check_namespace(&queue, namespace, found).await
}

async fn check_server(
    queue: &Queue,
    settings: &Settings,
    found: &mut (dyn FnMut(Finding) + Send),
) -> Result<(), QueueError> {
    let facts = queue.check().await?;
    let url = mask_url(settings.redis.url.as_deref().unwrap_or_default());
    let version = match &facts.valkey {
        Some(valkey) => format!("valkey {valkey}, as redis {}", facts.version),
        None => facts.version.clone(),
    };
    found(Finding::ok("redis", format!("{version} at {url}")));
    found(Finding::ok("redis eviction", facts.eviction_policy));
    let memory = match facts.maxmemory {
        0 => Finding::ok("redis memory", "no cap"),
        cap => Finding::ok("redis memory", format!("capped at {} MiB", cap >> 20)),
    };
    found(memory);
    found(if facts.appendonly {
        Finding::ok("redis durability", "append-only file on")
    } else {
        Finding::ok("redis durability", "append-only file off")
            .warn("set `appendonly yes`, or a crash of redis loses jobs")
    });
    found(argument_finding(queue.argument_limit().await?));
    let trip = fastest_round_trip(queue).await?;
    let latency = Finding::ok(
        "redis latency",
        format!("{:.2} ms a round trip", trip.as_secs_f64() * 1000.0),
    );
    found(if trip > SLOW_ROUND_TRIP {
        latency.warn("put workers near their redis: each job takes several round trips")
    } else {
        latency
    });
    check_namespace(queue, &settings.namespace, found).await
}

/// If Redis accepts large arguments, a client can store entries of any size with `XADD`.
fn argument_finding(most: Option<ByteCount>) -> Finding {
    let finding = |detail: String| Finding::ok("redis arguments", detail);
    match most {
        Some(most) if most <= ARGUMENT_BYTES_MAX => finding(format!("at most {most} each")),
        Some(most) => finding(format!(
            "proto-max-bulk-len is {most} (want at most {ARGUMENT_BYTES_MAX})"
        ))
        .fail(Some(
            "run `redis-cli CONFIG SET proto-max-bulk-len 64mb` and write it to redis.conf: \
             docs/reference/redis.md",
        )),
        None => finding("proto-max-bulk-len is not known: this user may not read it".to_owned())
            .warn("see that redis.conf has `proto-max-bulk-len 64mb`: docs/reference/redis.md"),
    }
}

async fn check_namespace(
    queue: &Queue,
    namespace: &Namespace,
    found: &mut (dyn FnMut(Finding) + Send),
) -> Result<(), QueueError> {
    let workers = queue.workers().await?;
    found(Finding::ok(
        "workers",
        format!("{} on namespace {namespace}", workers.len()),
    ));
    for overclaim in overclaim::overclaims(workers.iter().filter_map(|worker| worker.facts.pool)) {
        found(Finding::ok("shared machine", overclaim.to_string()).warn(overclaim::OVERCLAIM_HINT));
    }
    let snapshot = queue.snapshot().await?;
    for Unroutable {
        class, jobs, lack, ..
    } in queue.unroutable(&snapshot).await?
    {
        let (detail, hint) = match lack {
            Lack::Tags => (
                "no live worker serves it",
                "start a worker whose worker.tags hold all its tags, or cancel the jobs",
            ),
            Lack::Room => (
                "they ask for more memory or CPU than any live worker has",
                "start a larger worker, raise pool.memory or pool.cpu_millis, or cancel the jobs",
            ),
        };
        found(
            Finding::ok(
                &format!("class {class}"),
                format!("{jobs} ready, and {detail}"),
            )
            .warn(hint),
        );
    }
    Ok(())
}

/// Returns the shortest of several round trips.
async fn fastest_round_trip(queue: &Queue) -> Result<Duration, QueueError> {
    let mut fastest = Duration::MAX;
    for _ in 0..LATENCY_SAMPLES {
        let began = Instant::now();
        queue.classes().await?;
        fastest = fastest.min(began.elapsed());
    }
    Ok(fastest)
}

fn failure_finding(error: &QueueError) -> Finding {
    Finding::ok("redis", error_chain(error)).fail(error.hint())
}
