//! `sandhog status`: shows the current state of the queue, or of one job.

use sandhog_config::mask_url;
use sandhog_core::id::JobId;
use sandhog_core::units::UnixMillis;
use sandhog_queue::{
    ClassDepth, JobRecord, JobState, Lack, PoolFacts, Queue, Snapshot, Unroutable, WorkerRecord,
};
use serde_json::{Value, json};

use super::unknown_job::unknown_job;
use crate::args::StatusArgs;
use crate::context::AppContext;
use crate::error::CliError;
use crate::exit::Exit;
use crate::output::{Colour, OutputStream, Table, sanitize};
use crate::quantity::format_duration;

/// Shows the queue, or one job.
pub(crate) async fn status(app: &AppContext, args: &StatusArgs) -> Result<Exit, CliError> {
    let settings = app.queue_settings()?;
    let queue = Queue::connect(&settings.redis, &settings.namespace).await?;
    match &args.id {
        Some(id) => show_job(app, &queue, id).await,
        None => {
            let snapshot = queue.snapshot().await?;
            let workers = queue.workers().await?;
            let unroutable = queue.unroutable(&snapshot).await?;
            let namespace = settings.namespace.as_str();
            if app.output.is_json() {
                app.output
                    .json(&queue_object(namespace, &snapshot, &workers, &unroutable))?;
            } else {
                let url = settings.redis.url.as_deref().unwrap_or_default();
                app.output
                    .line(&format!("queue {namespace} on {}", mask_url(url)))?;
                show_queue(app, &snapshot, &workers, &unroutable)?;
            }
            Ok(Exit::Success)
        }
    }
}

fn show_queue(
    app: &AppContext,
    snapshot: &Snapshot,
    workers: &[WorkerRecord],
    unroutable: &[Unroutable],
) -> Result<(), CliError> {
    app.output.line(&format!(
        "intake {}, delayed {}, dead {}",
        snapshot.intake, snapshot.delayed, snapshot.dead
    ))?;
    if snapshot.paused {
        let text = "paused: no job starts until `sandhog resume`";
        app.output
            .line(&app.output.paint(OutputStream::Out, Colour::Yellow, text))?;
    }
    let is_empty = |depth: &&ClassDepth| depth.ready + depth.running + depth.held_back == 0;
    let classes = snapshot.classes.iter().filter(|depth| !is_empty(depth));
    let classes: Vec<&ClassDepth> = classes.collect();
    if !classes.is_empty() {
        let mut table = Table::new(["CLASS", "READY", "HELD BACK", "RUNNING", "OLDEST"]);
        for depth in classes {
            table.row([
                depth.class.to_string(),
                depth.ready.to_string(),
                depth.held_back.to_string(),
                depth.running.to_string(),
                depth.oldest.map_or_else(none, format_duration),
            ]);
        }
        app.output.line("")?;
        app.output.table(&table)?;
    }
    for Unroutable {
        class, jobs, lack, ..
    } in unroutable
    {
        let noun = if *jobs == 1 { "job" } else { "jobs" };
        let why = match lack {
            Lack::Tags => "serves",
            Lack::Room => "is large enough for",
        };
        let text = format!("no live worker {why} class {class}: {jobs} ready {noun}");
        app.output
            .line(&app.output.paint(OutputStream::Out, Colour::Yellow, &text))?;
    }
    app.output.line("")?;
    if workers.is_empty() {
        return app.output.line("no workers");
    }
    let mut table = Table::new([
        "WORKER",
        "TAGS",
        "BUSY",
        "SANDBOXES",
        "MEMORY",
        "CPU",
        "STATE",
    ]);
    for WorkerRecord { facts, .. } in workers {
        table.row([
            facts.id.to_string(),
            join(&facts.tags),
            format!("{}/{}", facts.busy, facts.slots),
            facts.pool.map_or_else(none, sandboxes),
            facts.pool.map_or_else(none, memory),
            facts.pool.map_or_else(none, cpu),
            match &facts.reserved_for {
                _ if facts.draining => "draining".to_owned(),
                Some(class) => format!("keeps room for {class}"),
                None => "serving".to_owned(),
            },
        ]);
    }
    app.output.table(&table)?;
    models(app, workers)?;
    gpus(app, workers)
}

/// Prints the models that workers serve or have served.
fn models(app: &AppContext, workers: &[WorkerRecord]) -> Result<(), CliError> {
    if workers.iter().all(|worker| worker.facts.models.is_empty()) {
        return Ok(());
    }
    let mut table = Table::new([
        "MODEL", "WORKER", "STATE", "RUNNING", "WAITING", "CALLS", "LOADS", "DEATHS", "MEMORY",
    ]);
    for WorkerRecord { facts, .. } in workers {
        for model in &facts.models {
            table.row([
                model.image.to_string(),
                facts.id.to_string(),
                model.state.as_str().to_owned(),
                model.running.to_string(),
                model.waiting.to_string(),
                model.calls.to_string(),
                model.loads.to_string(),
                model.deaths.to_string(),
                format!("{} MiB", model.memory.0 >> 20),
            ]);
        }
    }
    app.output.line("")?;
    app.output.table(&table)
}

/// Prints the GPUs of all workers, or nothing if there are none.
fn gpus(app: &AppContext, workers: &[WorkerRecord]) -> Result<(), CliError> {
    let mut table = Table::new(["GPU", "WORKER", "MODEL", "MEMORY", "USE", "JOBS", "STATE"]);
    let mut any = false;
    for WorkerRecord { facts, .. } in workers {
        for gpu in &facts.gpus {
            any = true;
            let use_ = gpu.utilisation_percent;
            table.row([
                sanitize(&gpu.uuid),
                facts.id.to_string(),
                sanitize(&gpu.name),
                format!("{}/{} MiB", gpu.memory_used.0 >> 20, gpu.memory.0 >> 20),
                use_.map_or_else(none, |percent| format!("{percent} %")),
                gpu.assigned.to_string(),
                gpu.failure
                    .as_deref()
                    .map_or_else(|| "works".to_owned(), sanitize),
            ]);
        }
    }
    if !any {
        return Ok(());
    }
    app.output.line("")?;
    app.output.table(&table)
}

fn none() -> String {
    "-".to_owned()
}

/// Formats the number of containers, the limit, and the number of idle ones.
fn sandboxes(pool: PoolFacts) -> String {
    let all = pool.busy + pool.idle + pool.starting + pool.leaving;
    format!("{all}/{} ({} idle)", pool.containers_max, pool.idle)
}

/// Formats the reserved memory and the limit.
fn memory(pool: PoolFacts) -> String {
    format!("{}/{} MiB", pool.memory.0 >> 20, pool.memory_max.0 >> 20)
}

/// Formats the reserved CPU and the limit, in cores.
fn cpu(pool: PoolFacts) -> String {
    let cores = |millis: u64| format!("{}.{}", millis / 1000, millis % 1000 / 100);
    format!(
        "{}/{}",
        cores(pool.cpu_millis.0),
        cores(pool.cpu_millis_max.0)
    )
}

pub(super) fn queue_object(
    namespace: &str,
    snapshot: &Snapshot,
    workers: &[WorkerRecord],
    unroutable: &[Unroutable],
) -> Value {
    let classes: Vec<Value> = snapshot
        .classes
        .iter()
        .map(|depth| {
            json!({
                "class": depth.class,
                "ready": depth.ready,
                "held_back": depth.held_back,
                "running": depth.running,
                "oldest_ready_ms": depth.oldest,
            })
        })
        .collect();
    let workers: Vec<Value> = workers
        .iter()
        .map(|WorkerRecord { facts, seen_at }| {
            json!({
                "id": facts.id,
                "tags": facts.tags,
                "slots": facts.slots,
                "busy": facts.busy,
                "draining": facts.draining,
                "version": facts.version,
                "host": facts.host,
                "pid": facts.pid,
                "started_at_ms": facts.started_at,
                "pool": facts.pool,
                "largest": facts.largest.map(|size| size.to_string()),
                "reserved_for": facts.reserved_for,
                "models": facts.models,
                "gpus": facts.gpus,
                "seen_at_ms": seen_at,
            })
        })
        .collect();
    let unroutable: Vec<Value> = unroutable
        .iter()
        .map(
            |Unroutable {
                 class,
                 jobs,
                 lack,
                 since,
             }| json!({"class": class, "ready": jobs, "lack": lack.as_str(), "since_ms": since}),
        )
        .collect();
    json!({
        "namespace": namespace,
        "paused": snapshot.paused,
        "intake": snapshot.intake,
        "delayed": snapshot.delayed,
        "dead": snapshot.dead,
        "classes": classes,
        "unroutable": unroutable,
        "workers": workers,
        "counters": snapshot.counters,
    })
}

async fn show_job(app: &AppContext, queue: &Queue, id: &JobId) -> Result<Exit, CliError> {
    let record = queue.job(id).await?.ok_or_else(|| unknown_job(id))?;
    let object = job_object(&record);
    if app.output.is_json() {
        app.output.json(&object)?;
        return Ok(Exit::Success);
    }
    app.output.fields_at(queue.now().await?, &object, 17)?;
    Ok(Exit::Success)
}

fn job_object(record: &JobRecord) -> Value {
    let state = match record.state {
        JobState::Queued => "queued",
        JobState::Delayed => "delayed",
        JobState::Running => "running",
        JobState::Finished => "finished",
        JobState::Dead => "dead",
    };
    let time = |at: Option<UnixMillis>| at.map(|at| at.0);
    json!({
        "id": record.id,
        "state": state,
        "outcome": record.outcome,
        "error": record.error,
        "class": record.class,
        "size": record.size.to_string(),
        "tenant": record.tenant,
        "priority": record.priority,
        "attempts": record.attempts,
        "lost": record.lost,
        "max_attempts": record.max_attempts,
        "worker": record.worker,
        "cancel_requested": record.cancel_requested,
        "submitted_at_ms": record.submitted_at,
        "run_at_ms": time(record.run_at),
        "expires_at_ms": time(record.expires_at),
        "started_at_ms": time(record.started_at),
        "finished_at_ms": time(record.finished_at),
    })
}

fn join(tags: &std::collections::BTreeSet<sandhog_core::id::Tag>) -> String {
    let tags: Vec<&str> = tags.iter().map(sandhog_core::id::Tag::as_str).collect();
    tags.join(",")
}

#[cfg(test)]
mod tests {
    use sandhog_core::gpu::GpuFacts;
    use sandhog_core::units::{ByteCount, Millis};
    use sandhog_queue::{ClassDepth, ModelFacts, ModelState, WorkerFacts};

    use super::*;

    #[test]
    fn the_queue_as_json() {
        let snapshot = Snapshot {
            classes: vec![ClassDepth {
                class: "cpu".parse().unwrap(),
                ready: 3,
                running: 2,
                oldest: Some(Millis(70)),
                held_back: 1,
            }],
            intake: 1,
            delayed: 4,
            dead: 5,
            workers: 1,
            paused: false,
            counters: [("admitted".to_owned(), 9)].into(),
        };
        let worker = WorkerRecord {
            facts: WorkerFacts {
                id: "w1".parse().unwrap(),
                tags: ["cpu".parse().unwrap()].into(),
                slots: 2,
                busy: 1,
                draining: false,
                version: "0.1.0".to_owned(),
                host: "h".to_owned(),
                pid: 7,
                started_at: UnixMillis(10),
                pool: Some(PoolFacts {
                    busy: 1,
                    idle: 2,
                    containers_max: 8,
                    memory: ByteCount(300),
                    ..PoolFacts::default()
                }),
                max_payload: None,
                largest: Some("m1536c2000".parse().unwrap()),
                reserved_for: Some("cpu~m1024c1000".parse().unwrap()),
                models: vec![ModelFacts {
                    image: "embed".parse().unwrap(),
                    state: ModelState::Busy,
                    running: 3,
                    waiting: 1,
                    calls: 17,
                    loads: 2,
                    deaths: 1,
                    memory: ByteCount(512),
                }],
                gpus: vec![GpuFacts {
                    uuid: "GPU-a".to_owned(),
                    name: "Tesla T4".to_owned(),
                    tag: "t4".parse().ok(),
                    memory: ByteCount(16),
                    memory_used: ByteCount(1),
                    utilisation_percent: Some(5),
                    assigned: 1,
                    failure: None,
                }],
            },
            seen_at: UnixMillis(20),
        };
        let unroutable = [Unroutable {
            class: "gpu".parse().unwrap(),
            jobs: 3,
            lack: Lack::Tags,
            since: Some(UnixMillis(9)),
        }];
        insta::assert_snapshot!(queue_object("default", &snapshot, &[worker], &unroutable).to_string(), @r#"{"namespace":"default","paused":false,"intake":1,"delayed":4,"dead":5,"classes":[{"class":"cpu","ready":3,"held_back":1,"running":2,"oldest_ready_ms":70}],"unroutable":[{"class":"gpu","ready":3,"lack":"tags","since_ms":9}],"workers":[{"id":"w1","tags":["cpu"],"slots":2,"busy":1,"draining":false,"version":"0.1.0","host":"h","pid":7,"started_at_ms":10,"pool":{"busy":1,"idle":2,"starting":0,"leaving":0,"containers_max":8,"memory":300,"memory_max":0,"cpu_millis":0,"cpu_millis_max":0},"largest":"m1536c2000","reserved_for":"cpu~m1024c1000","models":[{"image":"embed","state":"busy","running":3,"waiting":1,"calls":17,"loads":2,"deaths":1,"memory":512}],"gpus":[{"uuid":"GPU-a","name":"Tesla T4","tag":"t4","memory":16,"memory_used":1,"utilisation_percent":5,"assigned":1,"failure":null}],"seen_at_ms":20}],"counters":{"admitted":9}}"#);
    }

    #[test]
    fn a_job_as_json() {
        let record = JobRecord {
            id: "a".parse().unwrap(),
            state: JobState::Running,
            class: "cpu".parse().unwrap(),
            size: "m2048c4000".parse().unwrap(),
            tenant: "acme".parse().unwrap(),
            priority: 4,
            attempts: 1,
            lost: 0,
            max_attempts: 3,
            outcome: None,
            error: None,
            worker: Some("w1".parse().unwrap()),
            token: None,
            cancel_requested: false,
            submitted_at: UnixMillis(10),
            run_at: None,
            expires_at: None,
            started_at: Some(UnixMillis(20)),
            finished_at: None,
        };
        insta::assert_snapshot!(job_object(&record).to_string(), @r#"{"id":"a","state":"running","outcome":null,"error":null,"class":"cpu","size":"m2048c4000","tenant":"acme","priority":4,"attempts":1,"lost":0,"max_attempts":3,"worker":"w1","cancel_requested":false,"submitted_at_ms":10,"run_at_ms":null,"expires_at_ms":null,"started_at_ms":20,"finished_at_ms":null}"#);
    }
}
