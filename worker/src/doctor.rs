//! Diagnosis of the machine: Redis, the container engine, the images, and the features of their
//! sandboxes.
//!
//! The doctor only reads and reports. It repairs nothing, and starts only one sandbox for each
//! image, which it removes.

use std::time::{Duration, Instant};

use sandhog_common::config::{NO_ENGINE, Settings, mask_url};
use sandhog_common::id::{ImageName, Namespace, WorkerId};
use sandhog_common::queue::{ARGUMENT_MOST, Lack, Queue, QueueError, Unroutable};
use sandhog_common::units::ByteCount;
use sandhog_runner::protocol::{CgroupSupport, Features};
use serde::Serialize;

use crate::causes::with_causes;
use crate::gpu::inspect;
use crate::images::{self, CheckReport, ImageSummary};
use crate::machine;
use crate::sandbox::{Engine, SandboxError, Shape};
use crate::sharing;

/// Round-trip time to Redis above which every job becomes noticeably slower.
const SLOW: Duration = Duration::from_millis(20);

/// Number of round trips measured. The fastest counts, because other clients delay the others.
const ROUND_TRIPS: usize = 5;

/// Severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// No problem.
    Ok,
    /// It works, but may cause a problem.
    Warn,
    /// Jobs will not run, or could be lost.
    Fail,
}

/// Result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The thing that was checked.
    pub subject: String,
    /// The severity.
    pub health: Health,
    /// The observation.
    pub detail: String,
    /// Advice for the operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Finding {
    /// Creates a finding without a problem.
    #[must_use]
    pub fn ok(subject: &str, detail: impl Into<String>) -> Self {
        Self {
            subject: subject.to_owned(),
            health: Health::Ok,
            detail: detail.into(),
            hint: None,
        }
    }

    /// Turns the finding into a warning.
    #[must_use]
    pub fn warn(self, hint: &str) -> Self {
        Self {
            health: Health::Warn,
            hint: Some(hint.to_owned()),
            ..self
        }
    }

    /// Turns the finding into a failure.
    #[must_use]
    pub fn fail(self, hint: Option<&str>) -> Self {
        Self {
            health: Health::Fail,
            hint: hint.map(str::to_owned),
            ..self
        }
    }
}

/// Checks the configured Redis.
pub async fn redis(settings: &Settings, found: &mut (dyn FnMut(Finding) + Send)) {
    let queue = match Queue::connect(&settings.redis, &settings.namespace).await {
        Ok(queue) => queue,
        Err(error) => return found(queue_failed(&error)),
    };
    if let Err(error) = look_at_redis(&queue, settings, found).await {
        return found(queue_failed(&error));
    }
    for namespace in &settings.worker.namespaces {
        if let Err(error) = look_at_another(settings, namespace, found).await {
            found(
                Finding::ok(&format!("namespace {namespace}"), with_causes(&error))
                    .fail(error.hint()),
            );
        }
    }
}

/// Checks a namespace other than the usual one. In a cluster it may be on another server, which
/// must not lose jobs either.
async fn look_at_another(
    settings: &Settings,
    namespace: &Namespace,
    found: &mut (dyn FnMut(Finding) + Send),
) -> Result<(), QueueError> {
    let queue = Queue::connect(&settings.redis, namespace).await?;
    queue.check().await?;
    look_at_namespace(&queue, namespace, found).await
}

async fn look_at_redis(
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
    found(judge_argument(queue.argument_most().await?));
    let trip = quickest(queue).await?;
    let latency = Finding::ok(
        "redis latency",
        format!("{:.2} ms a round trip", trip.as_secs_f64() * 1000.0),
    );
    found(if trip > SLOW {
        latency.warn("put workers near their redis: each job takes several round trips")
    } else {
        latency
    });
    look_at_namespace(queue, &settings.namespace, found).await
}

/// If Redis accepts large arguments, a client can store entries of any size with `XADD`.
fn judge_argument(most: Option<ByteCount>) -> Finding {
    let finding = |detail: String| Finding::ok("redis arguments", detail);
    match most {
        Some(most) if most <= ARGUMENT_MOST => finding(format!("at most {most} each")),
        Some(most) => finding(format!(
            "proto-max-bulk-len is {most} (want at most {ARGUMENT_MOST})"
        ))
        .fail(Some(
            "run `redis-cli CONFIG SET proto-max-bulk-len 64mb` and write it to redis.conf: \
             docs/redis.md",
        )),
        None => finding("proto-max-bulk-len is not known: this user may not read it".to_owned())
            .warn("see that redis.conf has `proto-max-bulk-len 64mb`: docs/redis.md"),
    }
}

async fn look_at_namespace(
    queue: &Queue,
    namespace: &Namespace,
    found: &mut (dyn FnMut(Finding) + Send),
) -> Result<(), QueueError> {
    let workers = queue.workers().await?;
    found(Finding::ok(
        "workers",
        format!("{} on namespace {namespace}", workers.len()),
    ));
    for overclaim in sharing::overclaims(workers.iter().filter_map(|worker| worker.facts.pool)) {
        found(Finding::ok("shared machine", overclaim.to_string()).warn(sharing::HINT));
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

async fn quickest(queue: &Queue) -> Result<Duration, QueueError> {
    let mut quickest = Duration::MAX;
    for _ in 0..ROUND_TRIPS {
        let began = Instant::now();
        queue.classes().await?;
        quickest = quickest.min(began.elapsed());
    }
    Ok(quickest)
}

fn queue_failed(error: &QueueError) -> Finding {
    Finding::ok("redis", with_causes(error)).fail(error.hint())
}

/// Checks the container engine, the images, and the features of a sandbox of each image.
///
/// Starting a sandbox takes a second or more, so `begins` is called with the name of each thing
/// before it is checked.
pub async fn sandboxes(
    settings: &Settings,
    begins: &mut (dyn FnMut(&str) + Send),
    found: &mut (dyn FnMut(Finding) + Send),
) {
    let own = format!("doctor-{}", std::process::id());
    // A separate namespace, because workers remove containers of their namespace whose worker is
    // unknown.
    let namespace: Namespace = own
        .parse()
        .expect("letters, a hyphen and digits make a namespace");
    let name: WorkerId = own
        .parse()
        .expect("letters, a hyphen and digits make a worker's name");
    let sandbox = &settings.sandbox;
    if sandbox.engine == NO_ENGINE {
        let detail = "none here (sandbox.engine is none); run `sandhog doctor` on a worker's \
                      machine to check its engine";
        return found(Finding::ok("engine", detail));
    }
    let engine = match Engine::connect(sandbox, &namespace, &name).await {
        Ok(engine) => engine,
        Err(error) => return found(Finding::ok("engine", with_causes(&error)).fail(error.hint())),
    };
    look_at_engine(&engine, settings, found);
    look_at_limits(&engine, settings, found);
    let gpus = inspect::look_at_driver(settings, found).await;
    let images = match images::list(&engine, sandbox).await {
        Ok(images) => images,
        Err(error) => return found(Finding::ok("images", with_causes(&error)).fail(error.hint())),
    };
    if images.is_empty() {
        found(
            Finding::ok("images", "none, and no folder of images").fail(Some(
                "set sandbox.images_dir to the folder that holds the images' folders",
            )),
        );
    }
    let (named, others): (Vec<&ImageSummary>, Vec<&ImageSummary>) =
        images.iter().partition(|image| {
            let name = image.name.as_str();
            image.reference == sandbox.image_reference.replace("{name}", name)
        });
    for (image, place) in named.iter().zip(1..) {
        begins(&format!(
            "image {} ({place} of {})",
            image.name,
            named.len()
        ));
        look_at_image(&engine, settings, image, found).await;
    }
    if let Some(built) = named.iter().find(|image| image.digest.is_some()) {
        begins("container runtimes");
        look_at_runtimes(&engine, settings, &built.name, found).await;
        inspect::look_at_container(&engine, settings.gpu.attach, &built.name, &gpus, found).await;
    }
    if !others.is_empty() {
        let detail = format!(
            "{} with a contract under other references; not checked",
            others.len()
        );
        found(Finding::ok("other images", detail));
    }
}

fn look_at_engine(engine: &Engine, settings: &Settings, found: &mut (dyn FnMut(Finding) + Send)) {
    let facts = engine.facts();
    found(Finding::ok(
        "engine",
        format!("{} (API {})", facts.version, facts.api_version),
    ));
    found(Finding::ok(
        "engine runtime",
        format!(
            "{} of {}",
            settings.sandbox.runtime,
            facts.runtimes.join(", ")
        ),
    ));
    found(Finding::ok(
        "kernel",
        format!("{}, cgroup v{}", facts.kernel, facts.cgroup_version),
    ));
    let machine = Finding::ok(
        "engine machine",
        format!("{} cores, {} MiB", facts.cpus, facts.memory.0 >> 20),
    );
    found(if settings.sandbox.memory > facts.memory {
        machine.warn("sandbox.memory is more than the machine has: lower it")
    } else {
        machine
    });
}

/// Checks the limits of the machine that jobs could use up.
fn look_at_limits(engine: &Engine, settings: &Settings, found: &mut (dyn FnMut(Finding) + Send)) {
    machine::judge(settings, engine.facts())
        .into_iter()
        .for_each(found);
}

async fn look_at_image(
    engine: &Engine,
    settings: &Settings,
    image: &ImageSummary,
    found: &mut (dyn FnMut(Finding) + Send),
) {
    const BUILD: &str = "`sandhog images build` builds it";
    let subject = format!("image {}", image.name);
    match (&image.digest, image.current) {
        (None, _) => return found(Finding::ok(&subject, "not built").warn(BUILD)),
        (Some(_), Some(false)) => found(Finding::ok(&subject, "out of date").warn(BUILD)),
        (Some(_), Some(true)) => found(Finding::ok(&subject, "current")),
        (Some(_), None) => found(Finding::ok(&subject, "built elsewhere")),
    }
    let subject = format!("sandbox of {}", image.name);
    found(match images::check(engine, &image.name).await {
        Ok(report) => match images::check_size(&report.image.contract, &settings.sandbox) {
            Ok(()) => checked(&subject, &report),
            Err(error) => Finding::ok(&subject, error.to_string()).fail(error.hint()),
        },
        Err(error) => Finding::ok(&subject, with_causes(&error)).fail(error.hint()),
    });
}

/// Starts a container under each runtime that jobs may use, to find its features.
async fn look_at_runtimes(
    engine: &Engine,
    settings: &Settings,
    image: &ImageName,
    found: &mut (dyn FnMut(Finding) + Send),
) {
    let sandbox = &settings.sandbox;
    let mut runtimes = vec![&sandbox.runtime];
    runtimes.extend(
        sandbox
            .job_runtimes
            .iter()
            .filter(|runtime| **runtime != sandbox.runtime),
    );
    for runtime in runtimes {
        let subject = format!("runtime {runtime}");
        let probed = async {
            let image = engine.resolve(image).await?;
            let shape = Shape {
                runtime: runtime.clone(),
                ..engine.shape(&image)
            };
            let began = Instant::now();
            let probe = engine.start_shaped(&image, &shape).await?;
            let start = began.elapsed();
            let features = probe.features().clone();
            probe.destroy().await;
            Ok::<_, SandboxError>((start, features))
        };
        found(match probed.await {
            Ok((start, features)) => given(&subject, start, &features),
            Err(error) => Finding::ok(&subject, with_causes(&error)).fail(error.hint()),
        });
    }
}

fn checked(subject: &str, report: &CheckReport) -> Finding {
    given(subject, report.start, &report.features)
}

/// Returns the finding about the features that a sandbox gives its cells.
fn given(subject: &str, start: Duration, features: &Features) -> Finding {
    let Features {
        cgroup,
        network_namespace,
        seccomp,
        missing,
        memory_bytes: _,
    } = features;
    let cgroup = match cgroup {
        CgroupSupport::V2 => "cgroup v2",
        CgroupSupport::V1 => "cgroup v1",
        CgroupSupport::None => "no cgroup (the container's caps are the job's)",
    };
    let mut features = vec![cgroup];
    if *network_namespace {
        features.push("network namespace");
    }
    if *seccomp {
        features.push("seccomp");
    }
    let finding = Finding::ok(
        subject,
        format!(
            "ready in {} ms; each cell has {}",
            start.as_millis(),
            features.join(", ")
        ),
    );
    if missing.is_empty() {
        finding
    } else {
        finding.warn(&format!("missing here: {}", missing.join("; ")))
    }
}
