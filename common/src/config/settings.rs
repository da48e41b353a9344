//! What can be set, with its unit, default and the meaning of zero.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::gpu::{Attach, GpuChoice};
use super::mask::mask_url;
use super::pool::{Reuse, Warm};
use crate::id::{ImageName, Namespace, RuntimeName, Tag, WorkerId};
use crate::telemetry::LogFormat;
use crate::units::{ByteCount, CpuMillis, Millis};

/// Everything that can be set.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The queue this process talks to. Default: `default`.
    pub namespace: Namespace,
    /// How to reach Redis.
    pub redis: RedisSettings,
    /// What a worker does.
    pub worker: WorkerSettings,
    /// How sandboxes are made.
    pub sandbox: SandboxSettings,
    /// Which GPUs jobs are given, and how.
    pub gpu: GpuSettings,
    /// Which sandboxes are kept ready, and for whom.
    pub pool: PoolSettings,
    /// Where logs go.
    pub log: LogSettings,
    /// Where spans go.
    pub telemetry: TelemetrySettings,
    /// Where `sandhog up` keeps its own Redis' data.
    pub state: StateSettings,
}

impl Settings {
    /// The namespaces a worker serves: `namespace`, and what `worker.namespaces` adds.
    #[must_use]
    pub fn served(&self) -> Vec<Namespace> {
        let mut served = vec![self.namespace.clone()];
        served.extend_from_slice(&self.worker.namespaces);
        served
    }
}

/// How to reach Redis.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedisSettings {
    /// `redis://[user:password@]host:port[/db]`, `unix:/path`, `redis+sentinel://[user:password@]host:port,…/service`
    /// or `redis+cluster://[user:password@]host:port,…`; with `rediss` for `redis` every connection is encrypted. None
    /// (the default) means that `run` and `up` start a private server; every other command needs it.
    pub url: Option<String>,
    /// The file with the certificates (PEM) of the authorities that may sign a server's. None (the default) means the
    /// machine's own.
    pub tls_ca: Option<PathBuf>,
    /// The file with our own certificate (PEM), for servers that ask for one. Default none.
    pub tls_cert: Option<PathBuf>,
    /// The file with our certificate's key (PEM). Default none.
    pub tls_key: Option<PathBuf>,
    /// Our user at the Sentinels, which have users of their own. None (the default) means their default user.
    pub sentinel_user: Option<String>,
    /// Our password at the Sentinels. Default none.
    pub sentinel_password: Option<String>,
    /// How many replicas must have a submitted job, and a published result, before it counts. Zero (the default) does
    /// not wait for any: a failover may lose the last moments.
    pub wait_replicas: u32,
    /// How long one ordinary command may take, in milliseconds. Default 10,000. Zero is refused.
    pub response_timeout_ms: Millis,
    /// How long connecting may take, in milliseconds. Default 5,000. Zero is refused.
    pub connect_timeout_ms: Millis,
}

/// Shows no password.
impl fmt::Debug for RedisSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisSettings")
            .field("url", &self.url.as_deref().map(mask_url))
            .field("wait_replicas", &self.wait_replicas)
            .finish_non_exhaustive()
    }
}

impl Default for RedisSettings {
    fn default() -> Self {
        Self {
            url: None,
            tls_ca: None,
            tls_cert: None,
            tls_key: None,
            sentinel_user: None,
            sentinel_password: None,
            wait_replicas: 0,
            response_timeout_ms: Millis(10_000),
            connect_timeout_ms: Millis(5_000),
        }
    }
}

/// What a worker does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkerSettings {
    /// The worker's name. Default: the host's name, the process id and a random part.
    pub id: Option<WorkerId>,
    /// Namespaces it serves beside `namespace`; they share its slots by turns. Default none.
    pub namespaces: Vec<Namespace>,
    /// Jobs at once. Zero (the default) means one for each core.
    pub slots: u32,
    /// What it offers: it claims jobs whose tags are all among these. Default `cpu`. A worker with GPUs offers `gpu`
    /// and the tags of their models too, and one without them never offers `gpu`.
    pub tags: BTreeSet<Tag>,
    /// How long a job may go unrenewed before another worker takes it, in milliseconds. Default 15,000; at least
    /// 1,000. Renewed every third of it.
    pub lease_ms: Millis,
    /// How long a stopping worker waits for running jobs before it gives them back, in milliseconds. Default 30,000.
    /// Zero gives them back at once.
    pub grace_ms: Millis,
    /// Where health and metrics are served: `host:port`. Empty turns them off. Default `127.0.0.1:9464`.
    pub http: String,
    /// The largest job payload admitted. Default 1 MiB, 16 MiB at most.
    pub max_payload: ByteCount,
    /// The most bytes that the result of one job may bring back: twice its limit `output`,
    /// `fetch_bytes` and `display_total` together. A job that asks for more is rejected. Default 40
    /// MiB, which is also the most.
    pub max_result: ByteCount,
    /// How often a job may be lost with its worker before it is given up. Default 3.
    pub max_lost: u32,
    /// How long a job that asks for more than a worker has free may be passed over for jobs that fit, in milliseconds;
    /// then a worker large enough keeps room for it. Zero keeps room at once. Default 10,000.
    pub reserve_after_ms: Millis,
    /// Model servers loaded at once; an idle one makes room for another, and all but one may be kept loaded by
    /// their image's `min_warm`. Zero serves no jobs of kind `infer`. Default 4.
    pub models: u32,
    /// Images whose models programs may ask, of those that their job names: `smollm2,embed`. None listed (the default)
    /// means every one.
    pub program_models: Vec<ImageName>,
    /// Questions that one program may ask models in all. Zero lets no program ask any. Default 1,000.
    pub program_calls: u32,
    /// The folder with secrets that jobs may name, a file for each, and `policy.toml`, which says whose may have which.
    /// Default none: no job has any.
    pub secrets: Option<PathBuf>,
    /// Questions of one program that may be open at once; the next one waits. Default 8. Zero is refused.
    pub program_calls_at_once: u32,
}

impl Default for WorkerSettings {
    fn default() -> Self {
        Self {
            id: None,
            namespaces: Vec::new(),
            slots: 0,
            tags: BTreeSet::from(["cpu".parse().expect("a literal tag is valid")]),
            lease_ms: Millis(15_000),
            grace_ms: Millis(30_000),
            http: "127.0.0.1:9464".to_owned(),
            max_payload: crate::wire::MAX_PAYLOAD,
            max_result: crate::wire::MAX_RESULT,
            max_lost: 3,
            reserve_after_ms: Millis(10_000),
            models: 4,
            program_models: Vec::new(),
            secrets: None,
            program_calls: 1_000,
            program_calls_at_once: 8,
        }
    }
}

/// The value of `sandbox.engine` for a machine that only talks to the queue.
pub const NO_ENGINE: &str = "none";

/// How sandboxes are made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SandboxSettings {
    /// The container engine: `unix:///path` or `tcp://host:port`; `none` where only other machines
    /// have one. Default
    /// `unix:///var/run/docker.sock`.
    pub engine: String,
    /// The container runtime of images and jobs that name none, as the engine knows it. Default `runc`.
    pub runtime: RuntimeName,
    /// Runtimes that a job may choose, besides its image's own: `runc,runsc`. Default none.
    pub job_runtimes: Vec<RuntimeName>,
    /// What a short image name stands for: `{name}` is replaced. Default `sandhog/{name}:latest`.
    pub image_reference: String,
    /// Memory of the largest job, in bytes; a container has 256 MiB more, for its runner and
    /// zygote. Default 2 GiB.
    pub memory: ByteCount,
    /// CPU of one container, in thousandths of a core. Default 4,000, brought down to what the machine has.
    pub cpu_millis: CpuMillis,
    /// Processes and threads of one container. Default 4,352.
    pub pids: u32,
    /// The folder that holds one folder for each image to build. Default: `images` beside the installed binary's
    /// share directory or in the checkout.
    pub images_dir: Option<PathBuf>,
    /// The runner to bake into images. Default: `sandhog-runner` beside this program.
    pub runner: Option<PathBuf>,
}

impl Default for SandboxSettings {
    fn default() -> Self {
        Self {
            engine: "unix:///var/run/docker.sock".to_owned(),
            runtime: "runc".parse().expect("a literal runtime is valid"),
            job_runtimes: Vec::new(),
            image_reference: "sandhog/{name}:latest".to_owned(),
            memory: ByteCount::mib(2048),
            cpu_millis: CpuMillis(4_000),
            pids: 4_352,
            images_dir: None,
            runner: None,
        }
    }
}

/// Which GPUs jobs are given, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GpuSettings {
    /// The GPUs that a worker gives to jobs: `all` (default) that the driver knows, `none`, or some by their uuids
    /// (`GPU-…`) or numbers, as `nvidia-smi -L` lists them.
    pub devices: GpuChoice,
    /// Jobs and model servers at once on one GPU. 1 (the default) gives whole GPUs. With more, those that say in
    /// `gpu.memory` how much they use share one as long as that fits; the others still get whole ones. Zero is
    /// refused.
    pub share: u32,
    /// How a container is given its GPUs: `nvidia` (default), by the engine's NVIDIA runtime; `cdi`, by the names of
    /// the Container Device Interface, `nvidia.com/gpu=UUID`; `none`, not at all: they are only set aside, and their
    /// uuids told to the program, which is for tests.
    pub attach: Attach,
    /// Between two looks at the health of the GPUs, in milliseconds. Default 1,000. Zero is refused.
    pub check_ms: Millis,
    /// The driver's management library, NVML. None (the default) means the one that the system's loader finds, and
    /// that a machine without it has no GPUs; one that is named here has to be there.
    pub library: Option<PathBuf>,
}

impl Default for GpuSettings {
    fn default() -> Self {
        Self {
            devices: GpuChoice::All,
            share: 1,
            attach: Attach::Nvidia,
            check_ms: Millis(1_000),
            library: None,
        }
    }
}

/// Which sandboxes are kept ready, and for whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PoolSettings {
    /// Who may use a container after a job: `tenant` (default), other jobs of the same tenant; `any`, every tenant's;
    /// `never`, nobody. Each job has a fresh cell either way.
    pub reuse: Reuse,
    /// How long an idle container is kept, in milliseconds. Default 300,000. Zero keeps none.
    pub idle_ms: Millis,
    /// Unused containers kept ready from the start, by image: `python=2`; without a number, one. Default none.
    pub warm: Vec<Warm>,
    /// Unused containers kept ready for an image that was used within `pool.idle_ms`, where containers serve one job
    /// each. Zero (the default) means two for each slot, and at least 4.
    pub ahead: u32,
    /// Containers at once, idle ones and those being started or destroyed included. Zero (the default) means four for
    /// each slot, and at least 8.
    pub containers: u32,
    /// Memory that jobs, by their caps, and idle containers, by what they hold, may take together, in bytes. Zero (the
    /// default) means nine tenths of the engine's machine, divided by `pool.workers`.
    pub memory: ByteCount,
    /// CPU that jobs, by their caps, may take together, in thousandths of a core. Zero (the
    /// default) means all cores of the engine's machine, or one for each slot where there are more
    /// slots, divided by `pool.workers`.
    pub cpu_millis: CpuMillis,
    /// Workers that share the engine's machine, this one included. Default 1.
    pub workers: u32,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            reuse: Reuse::Tenant,
            idle_ms: Millis(300_000),
            warm: Vec::new(),
            ahead: 0,
            containers: 0,
            memory: ByteCount(0),
            cpu_millis: CpuMillis(0),
            workers: 1,
        }
    }
}

/// Where logs go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// A `tracing` filter, such as `info` or `sandhog_worker=debug`. Default `info` for workers, `warn` elsewhere.
    pub filter: Option<String>,
    /// `text` (default) or `json`.
    pub format: LogFormat,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            filter: None,
            format: LogFormat::Text,
        }
    }
}

/// Where spans go.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetrySettings {
    /// Where workers send spans: the address of an OTLP receiver that speaks HTTP, such as `http://127.0.0.1:4318`;
    /// `/v1/traces` is added. Default: the standard `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, else
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`, else none are sent. Empty sends none in any case.
    pub otlp: Option<String>,
}

/// Where `sandhog up` keeps its own Redis' data.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StateSettings {
    /// The folder. Default `$XDG_STATE_HOME/sandhog`, else `~/.local/state/sandhog`.
    pub dir: Option<PathBuf>,
}
