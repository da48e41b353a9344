//! Workers: the report of each worker on itself, which expires unless it is renewed.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use crate::model_facts::ModelFacts;
use crate::resp::RespValue;
use crate::script::ANNOUNCE;
use crate::{Queue, QueueError};
use sandhog_core::class::Class;
use sandhog_core::gpu::GpuFacts;
use sandhog_core::id::{Tag, WorkerId};
use sandhog_core::size::Size;
use sandhog_core::units::{ByteCount, CpuMillis, Millis, UnixMillis};

/// A worker's report on itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerFacts {
    /// Its name.
    pub id: WorkerId,
    /// The tags that it offers.
    pub tags: BTreeSet<Tag>,
    /// Number of jobs that it runs at the same time.
    pub slots: u32,
    /// Number of jobs that it runs now.
    pub busy: u32,
    /// True if it is stopping and claims no more jobs.
    pub draining: bool,
    /// Version of its program.
    pub version: String,
    /// The machine it runs on.
    pub host: String,
    /// Its process id on that machine.
    pub pid: u32,
    /// Time of its start, by its own clock.
    pub started_at: UnixMillis,
    /// Usage of its pool of containers; `None` for a worker without containers.
    pub pool: Option<PoolFacts>,
    /// Size of the largest job that it takes; `None` if it takes jobs of any size.
    pub largest: Option<Size>,
    /// Maximum size of a payload that it admits; `None` for a worker of an older version.
    pub max_payload: Option<ByteCount>,
    /// The class that it reserves capacity for, if any.
    pub reserved_for: Option<Class>,
    /// The models it serves or has served, by image.
    pub models: Vec<ModelFacts>,
    /// The GPUs that it assigns to jobs, including failed ones.
    pub gpus: Vec<GpuFacts>,
}

/// Usage of a worker's pool of containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PoolFacts {
    /// Containers that run a job.
    pub busy: u32,
    /// Containers that wait for a job.
    pub idle: u32,
    /// Containers being started.
    pub starting: u32,
    /// Containers being destroyed.
    pub leaving: u32,
    /// Maximum number of containers.
    pub containers_max: u32,
    /// Memory reserved for running jobs and for containers.
    pub memory: ByteCount,
    /// Memory that can be reserved.
    pub memory_max: ByteCount,
    /// CPU reserved for running jobs.
    pub cpu_millis: CpuMillis,
    /// CPU that can be reserved.
    pub cpu_millis_max: CpuMillis,
    /// The machine of its container engine, if the worker reports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineFacts>,
}

/// A machine that several workers may share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MachineFacts {
    /// Number that identifies the machine: workers on the same machine have the same.
    pub id: u64,
    /// Its memory.
    pub memory: ByteCount,
    /// Its cores, in thousandths.
    pub cpu_millis: CpuMillis,
}

/// A worker's record in Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerRecord {
    /// The worker's report on itself.
    pub facts: WorkerFacts,
    /// Time of the report, by the clock of Redis.
    pub seen_at: UnixMillis,
}

impl Queue {
    /// Writes this worker's report on itself. It expires after `ttl` unless it is written again.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached.
    pub async fn announce(&self, facts: &WorkerFacts, ttl: Millis) -> Result<(), QueueError> {
        let tags: Vec<&str> = facts.tags.iter().map(Tag::as_str).collect();
        let pool = facts
            .pool
            .map(|pool| serde_json::to_string(&pool).expect("the report serializes to JSON"));
        let models = serde_json::to_string(&facts.models).expect("the report serializes to JSON");
        let mut call = ANNOUNCE
            .call(self.keys.prefix())
            .arg(facts.id.as_str())
            .arg(ttl.0)
            .arg(("labels", tags.join("+")))
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
            let gpus = serde_json::to_string(&facts.gpus).expect("the report serializes to JSON");
            call = call.arg(("gpus", gpus));
        }
        call.run(&self.connection).await.map(drop)
    }

    /// Removes a worker from the list. Its leases, if it has any, are not changed.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached.
    pub async fn retire(&self, worker: &WorkerId) -> Result<(), QueueError> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("DEL").arg(self.keys.worker(worker));
        pipeline
            .cmd("ZREM")
            .arg(self.keys.workers())
            .arg(worker.as_str());
        let crew = format!("{}crew", self.keys.prefix());
        pipeline.cmd("ZREM").arg(crew).arg(worker.as_str());
        self.connection
            .run_repeatable_pipeline("ZREM", &pipeline)
            .await
            .map(drop)
    }

    /// Returns all classes that have had a ready job recently, sorted.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached.
    pub async fn classes(&self) -> Result<Vec<Class>, QueueError> {
        self.members(&self.keys.classes()).await
    }

    /// Returns the names of the workers that announced themselves recently, and of some that are
    /// gone since then.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached.
    pub async fn worker_ids(&self) -> Result<Vec<WorkerId>, QueueError> {
        let mut command = redis::cmd("ZRANGE");
        command.arg(self.keys.workers()).arg(0).arg(-1);
        let answer = self.connection.run_repeatable("ZRANGE", &command).await?;
        RespValue::new("ZRANGE", answer)
            .parts()?
            .map(RespValue::name)
            .collect()
    }

    /// Returns the workers that announced themselves recently, by name.
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
        let answers = self
            .connection
            .run_repeatable_pipeline("HGETALL", &pipeline)
            .await?;
        ids.into_iter()
            .zip(answers)
            .filter_map(|(id, answer)| record(id, RespValue::new("HGETALL", answer)).transpose())
            .collect()
    }
}

/// Decodes one worker's hash. `None` if it has expired but is still listed.
fn record(id: WorkerId, reply: RespValue) -> Result<Option<WorkerRecord>, QueueError> {
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
    let tags = take("labels")?
        .text()?
        .split('+')
        .filter(|tag| !tag.is_empty())
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
    // A worker of an older version does not report models.
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
            tags,
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
