//! Who works here: what each worker says of itself, with a time to live.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use super::models::ModelFacts;
use super::reply::Reply;
use super::script::ANNOUNCE;
use super::{Queue, QueueError};
use crate::class::Class;
use crate::gpu::GpuFacts;
use crate::id::{Tag, WorkerId};
use crate::size::Size;
use crate::units::{ByteCount, CpuMillis, Millis, UnixMillis};

/// What a worker says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerFacts {
    /// Its name.
    pub id: WorkerId,
    /// What it offers.
    pub labels: BTreeSet<Tag>,
    /// Jobs at once.
    pub slots: u32,
    /// Jobs it runs now.
    pub busy: u32,
    /// Whether it is stopping and claims no more.
    pub draining: bool,
    /// Its program's version.
    pub version: String,
    /// The machine it runs on.
    pub host: String,
    /// Its process id there.
    pub pid: u32,
    /// When it started, by its own clock.
    pub started_at: UnixMillis,
    /// How full its pool of containers is; none for a worker that has no containers.
    pub pool: Option<PoolFacts>,
    /// The largest job it takes; none when jobs of any size fit it.
    pub largest: Option<Size>,
    /// The largest payload it admits; none for a worker of an older version.
    pub max_payload: Option<ByteCount>,
    /// The class of the job it keeps room for, if it does.
    pub reserved_for: Option<Class>,
    /// The models it serves or has served, by image.
    pub models: Vec<ModelFacts>,
    /// The GPUs that it gives to jobs, those that failed included.
    pub gpus: Vec<GpuFacts>,
}

/// How full a worker's pool of containers is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PoolFacts {
    /// Containers that run a job.
    pub busy: u32,
    /// Containers that wait for one.
    pub idle: u32,
    /// Containers being started.
    pub starting: u32,
    /// Containers being destroyed.
    pub leaving: u32,
    /// Containers there may be at once.
    pub containers_max: u32,
    /// Memory set aside for running jobs and for containers.
    pub memory: ByteCount,
    /// Memory there is to set aside.
    pub memory_max: ByteCount,
    /// CPU set aside for running jobs.
    pub cpu_millis: CpuMillis,
    /// CPU there is to set aside.
    pub cpu_millis_max: CpuMillis,
    /// The machine of its engine, where the worker says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineFacts>,
}

/// A machine that several workers may share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MachineFacts {
    /// A number that stands for it: workers of one machine have the same.
    pub id: u64,
    /// Its memory.
    pub memory: ByteCount,
    /// Its cores, in thousandths.
    pub cpu_millis: CpuMillis,
}

/// What Redis knows of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerRecord {
    /// What it said of itself.
    pub facts: WorkerFacts,
    /// When it said so, by Redis' clock.
    pub seen_at: UnixMillis,
}

impl Queue {
    /// Says who we are; forgotten after `ttl` unless said again.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn announce(&self, facts: &WorkerFacts, ttl: Millis) -> Result<(), QueueError> {
        let labels: Vec<&str> = facts.labels.iter().map(Tag::as_str).collect();
        let pool = facts
            .pool
            .map(|pool| serde_json::to_string(&pool).expect("counts have a form in JSON"));
        let models = serde_json::to_string(&facts.models).expect("counts have a form in JSON");
        let mut call = ANNOUNCE
            .call(self.keys.prefix())
            .arg(facts.id.as_str())
            .arg(ttl.0)
            .arg(("labels", labels.join("+")))
            .arg(("slots", facts.slots))
            .arg(("busy", facts.busy))
            .arg(("draining", u8::from(facts.draining)))
            .arg(("version", &facts.version))
            .arg(("host", &facts.host))
            .arg(("pid", facts.pid))
            .arg(("started_at", facts.started_at.0))
            .arg(("models", models));
        if let Some(pool) = pool {
            call = call.arg(("pool", pool));
        }
        if let Some(largest) = facts.largest {
            call = call.arg(("largest", largest.to_string()));
        }
        if let Some(most) = facts.max_payload {
            call = call.arg(("max_payload", most.0));
        }
        if let Some(class) = &facts.reserved_for {
            call = call.arg(("reserved_for", class.as_str()));
        }
        if !facts.gpus.is_empty() {
            let gpus = serde_json::to_string(&facts.gpus).expect("facts have a form in JSON");
            call = call.arg(("gpus", gpus));
        }
        call.run(&self.link).await.map(drop)
    }

    /// Takes a worker off the list. Its leases, if it has any, are not touched.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn retire(&self, worker: &WorkerId) -> Result<(), QueueError> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("DEL").arg(self.keys.worker(worker));
        pipeline
            .cmd("ZREM")
            .arg(self.keys.workers())
            .arg(worker.as_str());
        let crew = format!("{}crew", self.keys.prefix());
        pipeline.cmd("ZREM").arg(crew).arg(worker.as_str());
        self.link
            .repeatable_pipeline("ZREM", &pipeline)
            .await
            .map(drop)
    }

    /// Every class that has had a ready job lately, sorted.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached.
    pub async fn classes(&self) -> Result<Vec<Class>, QueueError> {
        self.members(&self.keys.classes()).await
    }

    /// The names of the workers that announced themselves lately, and of some that are gone since.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached.
    pub async fn worker_ids(&self) -> Result<Vec<WorkerId>, QueueError> {
        let mut command = redis::cmd("ZRANGE");
        command.arg(self.keys.workers()).arg(0).arg(-1);
        let answer = self.link.repeatable("ZRANGE", &command).await?;
        Reply::new("ZRANGE", answer)
            .parts()?
            .map(Reply::name)
            .collect()
    }

    /// The workers heard of lately, by name.
    ///
    /// # Errors
    /// Fails if Redis cannot be reached.
    pub async fn workers(&self) -> Result<Vec<WorkerRecord>, QueueError> {
        let mut ids = self.worker_ids().await?;
        ids.sort();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = redis::pipe();
        for id in &ids {
            pipeline.cmd("HGETALL").arg(self.keys.worker(id));
        }
        let answers = self.link.repeatable_pipeline("HGETALL", &pipeline).await?;
        ids.into_iter()
            .zip(answers)
            .filter_map(|(id, answer)| record(id, Reply::new("HGETALL", answer)).transpose())
            .collect()
    }
}

/// One worker's hash; none when it has been forgotten but is still listed.
fn record(id: WorkerId, reply: Reply) -> Result<Option<WorkerRecord>, QueueError> {
    let mut parts = reply.parts()?;
    let mut fields = HashMap::new();
    while let Some(name) = parts.next() {
        fields.insert(name.text()?, parts.part()?);
    }
    let mut take = |name: &'static str| {
        fields.remove(name).ok_or_else(|| QueueError::Reply {
            command: "HGETALL",
            detail: format!("no {name}"),
        })
    };
    let seen_at = match take("seen_at") {
        Ok(seen_at) => UnixMillis(seen_at.number()?),
        Err(_forgotten) => return Ok(None),
    };
    let labels = take("labels")?
        .text()?
        .split('+')
        .filter(|label| !label.is_empty())
        .map(str::parse)
        .collect::<Result<BTreeSet<Tag>, _>>()
        .map_err(|source| QueueError::Name {
            command: "HGETALL",
            source,
        })?;
    let pool = match take("pool") {
        Ok(pool) => serde_json::from_str(&pool.text()?).ok(),
        Err(_no_containers) => None,
    };
    let name_error = |source| QueueError::Name {
        command: "HGETALL",
        source,
    };
    let largest = match take("largest") {
        Ok(largest) => Some(largest.text()?.parse().map_err(name_error)?),
        Err(_without_bounds) => None,
    };
    let max_payload = match take("max_payload") {
        Ok(most) => Some(ByteCount(most.number()?)),
        Err(_older) => None,
    };
    let reserved_for = match take("reserved_for") {
        Ok(class) => Some(class.name()?),
        Err(_nobody) => None,
    };
    // A worker of an older version says nothing of models.
    let models = match take("models") {
        Ok(models) => serde_json::from_str(&models.text()?).unwrap_or_default(),
        Err(_none) => Vec::new(),
    };
    let gpus = match take("gpus") {
        Ok(gpus) => serde_json::from_str(&gpus.text()?).unwrap_or_default(),
        Err(_has_none) => Vec::new(),
    };
    Ok(Some(WorkerRecord {
        facts: WorkerFacts {
            id,
            labels,
            slots: take("slots")?.number()?,
            busy: take("busy")?.number()?,
            draining: take("draining")?.number::<u8>()? == 1,
            version: take("version")?.text()?,
            host: take("host")?.text()?,
            pid: take("pid")?.number()?,
            started_at: UnixMillis(take("started_at")?.number()?),
            pool,
            largest,
            max_payload,
            reserved_for,
            models,
            gpus,
        },
        seen_at,
    }))
}
