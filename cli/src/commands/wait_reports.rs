//! Reports on standard error why a job that a command waits for does not start. Without a report,
//! the user cannot tell a wait from a fault.
//!
//! Submitters and readers have no permission to read the queue; for them nothing is reported.

use std::time::Duration;

use sandhog_core::id::JobId;
use sandhog_core::size::Resources;
use sandhog_core::units::UnixMillis;
use sandhog_producer::Client;
use sandhog_queue::{
    JobRecord, JobState, Lack, Queue, QueueError, Snapshot, TenantRecord, Unroutable, WorkerRecord,
};
use serde_json::json;

use crate::output::Printer;

/// Time from the start of a wait to the first check, and between two checks.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// A reason why a job does not run yet.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reason {
    /// A stable code, for programs.
    code: &'static str,
    text: String,
}

impl Reason {
    fn new(code: &'static str, text: impl Into<String>) -> Option<Self> {
        let text = text.into();
        Some(Self { code, text })
    }
}

/// Waits for `done`. Meanwhile reports on standard error why the job does not run, once for each
/// change of the reason.
pub(crate) async fn with_wait_reports<T>(
    output: Printer,
    client: &Client,
    id: &JobId,
    done: impl Future<Output = T>,
) -> T {
    tokio::select! {
        biased;
        done = Box::pin(done) => done,
        never = Box::pin(report_reasons(output, client.queue(), id)) => never,
    }
}

/// Reports why a job does not run, until the future is dropped.
async fn report_reasons<T>(output: Printer, queue: &Queue, id: &JobId) -> T {
    let mut last_code = None;
    loop {
        tokio::time::sleep(CHECK_INTERVAL).await;
        match reason(queue, id).await {
            Ok(reason) => {
                // A reason is reported again only if its code changes; new numbers are not enough.
                let is_news = reason.as_ref().map(|r| r.code) != last_code;
                last_code = reason.as_ref().map(|r| r.code);
                if let Some(reason) = reason.filter(|_| is_news) {
                    show(output, id, &reason);
                }
            }
            Err(error) if error.is_forbidden() => return std::future::pending().await,
            // The wait itself reports that Redis cannot be reached.
            Err(_) => {}
        }
    }
}

fn show(output: Printer, id: &JobId, reason: &Reason) {
    if output.is_json() {
        output.note(
            &json!({"waiting": {"id": id, "code": reason.code, "message": reason.text}})
                .to_string(),
        );
    } else {
        output.note(&format!("sandhog: waiting: {}", reason.text));
    }
}

/// Returns the reason why a job does not run, or `None` if it runs or nothing prevents it.
async fn reason(queue: &Queue, id: &JobId) -> Result<Option<Reason>, QueueError> {
    let Some(job) = queue.job(id).await? else {
        return reason_not_admitted(queue).await;
    };
    match job.state {
        JobState::Running | JobState::Finished | JobState::Dead => return Ok(None),
        JobState::Queued | JobState::Delayed => {}
    }
    let facts = QueueFacts {
        workers: queue.workers().await?,
        tenant: queue.tenant(&job.tenant).await?,
        snapshot: queue.snapshot().await?,
    };
    if facts.workers.is_empty() {
        return no_worker(queue).await;
    }
    let unroutable = queue.unroutable(&facts.snapshot).await?;
    Ok(reason_admitted(&job, &facts, &unroutable))
}

/// Returns the reason for a job that is not admitted yet.
async fn reason_not_admitted(queue: &Queue) -> Result<Option<Reason>, QueueError> {
    if queue.workers().await?.is_empty() {
        return no_worker(queue).await;
    }
    let intake = queue.snapshot().await?.intake;
    if intake == 0 {
        return Ok(None);
    }
    let text = format!("{intake} entries of the intake are not admitted yet");
    Ok(Reason::new("intake", text))
}

/// Returns the reason for a job that has no worker. If the settings of Redis prevent workers from
/// starting, the reason says so.
async fn no_worker(queue: &Queue) -> Result<Option<Reason>, QueueError> {
    let evicting = match queue.check().await {
        Err(error @ QueueError::Evicting { .. }) => Some(error.to_string()),
        Ok(_) | Err(_) => None,
    };
    Ok(evicting.map_or_else(
        || Reason::new("no_worker", "no worker is running"),
        |why| Reason::new("evicting", format!("no worker can start: {why}")),
    ))
}

/// The state of the queue, as needed to find the reason.
struct QueueFacts {
    workers: Vec<WorkerRecord>,
    tenant: TenantRecord,
    snapshot: Snapshot,
}

/// Returns the reason for a job that is admitted, in a queue with workers.
fn reason_admitted(
    job: &JobRecord,
    facts: &QueueFacts,
    unroutable: &[Unroutable],
) -> Option<Reason> {
    let class = job.class.sized(job.size);
    if let (JobState::Delayed, Some(UnixMillis(run_at))) = (job.state, job.run_at) {
        let times = facts.workers.iter().map(|worker| worker.seen_at.0);
        let seconds = run_at.saturating_sub(times.max().unwrap_or(run_at)) / 1000;
        let text = if job.attempts > 0 {
            format!("the job is retried in about {seconds} s")
        } else {
            format!("the job is delayed; it starts in about {seconds} s")
        };
        return Reason::new("delayed", text);
    }
    if facts.snapshot.paused {
        return Reason::new(
            "paused",
            "the queue is paused (`sandhog resume` resumes it)",
        );
    }
    let lack = unroutable.iter().find(|one| one.class == class);
    if let Some(Unroutable { lack, .. }) = lack {
        return match lack {
            Lack::Tags => Reason::new(
                "no_tags",
                format!(
                    "no live worker serves class {class} (missing: {})",
                    lack.as_str()
                ),
            ),
            Lack::Room => {
                let Resources {
                    memory_mib,
                    cpu_millis,
                } = job.size.resources();
                let (cores, millis) = (cpu_millis / 1000, cpu_millis % 1000);
                let text = format!(
                    "no live worker has room for a job of {memory_mib} MiB and \
                     {cores}.{millis:03} cores"
                );
                Reason::new("no_room", text)
            }
        };
    }
    if let Some(reason) = tenant_reason(&facts.tenant) {
        return Some(reason);
    }
    let depth = facts
        .snapshot
        .classes
        .iter()
        .find(|one| one.class == class)?;
    if let (Some(rate), true) = (facts.tenant.settings.rate, depth.held_back > 0) {
        let text = format!(
            "tenant {} may start only {rate} jobs per second",
            job.tenant
        );
        return Reason::new("tenant_rate", text);
    }
    // The job is about to start.
    if depth.ready == 0 {
        return None;
    }
    let text = format!(
        "all slots are busy: {} jobs of class {class} run and {} are ready",
        depth.running, depth.ready
    );
    Reason::new("backlog", text)
}

/// Returns the reason that the job's tenant causes, if there is one.
fn tenant_reason(record: &TenantRecord) -> Option<Reason> {
    let TenantRecord {
        tenant, settings, ..
    } = record;
    if settings.paused {
        let text =
            format!("tenant {tenant} is paused (`sandhog tenant resume {tenant}` resumes it)");
        return Reason::new("tenant_paused", text);
    }
    let most = settings.max_running?;
    if record.running < u64::from(most.get()) {
        return None;
    }
    let text = format!(
        "tenant {tenant} runs {} jobs, which is its limit",
        record.running
    );
    Reason::new("tenant_max_running", text)
}

#[cfg(test)]
mod tests {
    use sandhog_core::tenant_limits::TenantLimits;
    use sandhog_core::units::{ByteCount, Millis};
    use sandhog_queue::ClassDepth;

    use super::*;

    fn job() -> JobRecord {
        JobRecord {
            id: "a".parse().unwrap(),
            state: JobState::Queued,
            class: "gpu".parse().unwrap(),
            size: "m512c1000".parse().unwrap(),
            tenant: "acme".parse().unwrap(),
            priority: 4,
            attempts: 0,
            lost: 0,
            max_attempts: 3,
            outcome: None,
            error: None,
            worker: None,
            token: None,
            cancel_requested: false,
            submitted_at: UnixMillis(10),
            run_at: None,
            expires_at: None,
            started_at: None,
            finished_at: None,
        }
    }

    fn facts(settings: TenantLimits, running: u64) -> QueueFacts {
        QueueFacts {
            workers: Vec::new(),
            tenant: TenantRecord {
                tenant: "acme".parse().unwrap(),
                settings,
                running,
                ready: 1,
                retained: ByteCount(0),
            },
            snapshot: Snapshot {
                classes: vec![ClassDepth {
                    class: "gpu".parse().unwrap(),
                    ready: 3,
                    running: 2,
                    oldest: Some(Millis(70)),
                    held_back: 0,
                }],
                ..Snapshot::default()
            },
        }
    }

    #[test]
    fn each_reason_has_its_line() {
        let lack = |lack| {
            vec![Unroutable {
                class: "gpu".parse().unwrap(),
                jobs: 1,
                lack,
                since: None,
            }]
        };
        let free = TenantLimits::default();
        let paused = TenantLimits {
            paused: true,
            ..free
        };
        let capped = TenantLimits {
            max_running: Some("2".parse().unwrap()),
            ..free
        };
        for (case, facts, unroutable, want) in [
            (
                "tags",
                facts(free, 0),
                lack(Lack::Tags),
                "no live worker serves class gpu (missing: tags)",
            ),
            (
                "room",
                facts(free, 0),
                lack(Lack::Room),
                "no live worker has room for a job of 512 MiB and 1.000 cores",
            ),
            (
                "paused",
                facts(paused, 0),
                Vec::new(),
                "tenant acme is paused (`sandhog tenant resume acme` resumes it)",
            ),
            (
                "cap",
                facts(capped, 2),
                Vec::new(),
                "tenant acme runs 2 jobs, which is its limit",
            ),
            (
                "backlog",
                facts(capped, 1),
                Vec::new(),
                "all slots are busy: 2 jobs of class gpu run and 3 are ready",
            ),
        ] {
            let reason = reason_admitted(&job(), &facts, &unroutable).map(|reason| reason.text);
            assert_eq!(reason.as_deref(), Some(want), "{case}");
        }
        let late = JobRecord {
            state: JobState::Delayed,
            run_at: Some(UnixMillis(9_000)),
            ..job()
        };
        let reason = reason_admitted(&late, &facts(free, 0), &[]).unwrap();
        assert_eq!(reason.code, "delayed");
    }
}
