//! All settings, each with its unit, its default and the meaning of zero.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::gpu::{Attach, GpuChoice};
use super::logging::LogFormat;
use super::mask::mask_url;
use super::reuse::Reuse;
use super::sandbox_unit::SandboxUnit;
use super::warm_count::WarmCount;
use sandhog_core::id::{ImageName, Namespace, RuntimeName, Tag, WorkerId};
use sandhog_core::units::{ByteCount, CpuMillis, Millis};

/// All settings.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The queue that this process uses. Default: `default`.
    pub namespace: Namespace,
    /// Settings of the connection to Redis.
    pub redis: RedisSettings,
    /// Settings of a worker.
    pub worker: WorkerSettings,
    /// Settings of the container engine and of containers.
    pub sandbox: SandboxSettings,
    /// Settings of GPUs for jobs.
    pub gpu: GpuSettings,
    /// Settings of the pool of warm containers.
    pub pool: PoolSettings,
    /// Settings of logging.
    pub log: LogSettings,
    /// Settings of tracing.
    pub telemetry: TelemetrySettings,
    /// Settings of the Redis server that `sandhog up` starts.
    pub state: StateSettings,
}

impl Settings {
    /// Returns the namespaces that a worker serves: `namespace`, then those of `worker.namespaces`.
    #[must_use]
    pub fn served(&self) -> Vec<Namespace> {
        let mut served = vec![self.namespace.clone()];
        served.extend_from_slice(&self.worker.namespaces);
        served
    }
}

/// Settings of the connection to Redis.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedisSettings {
    /// The server's address: `redis://[user:password@]host:port[/db]`, `unix:/path`,
    /// `redis+sentinel://[user:password@]host:port,…/service` or
    /// `redis+cluster://[user:password@]host:port,…`; with `rediss` in place of `redis` every
    /// connection is encrypted. None (the default) means that `run` and `up` start a private
    /// server; every other command needs it.
    pub url: Option<String>,
    /// The file with the certificates (PEM) of the authorities that may sign a server's
    /// certificate. None (the default) means the machine's own authorities.
    pub tls_ca: Option<PathBuf>,
    /// The file with the client certificate (PEM), for servers that require one. Default none.
    pub tls_cert: Option<PathBuf>,
    /// The file with the key (PEM) of the client certificate. Default none.
    pub tls_key: Option<PathBuf>,
    /// The user name at the Sentinels, which have users of their own. None (the default) means
    /// their default user.
    pub sentinel_user: Option<String>,
    /// The password at the Sentinels. Default none.
    pub sentinel_password: Option<String>,
    /// Number of replicas that must confirm a submitted job, and a published result, before it
    /// counts. Zero (the default) waits for none: a failover may lose the last moments.
    pub wait_replicas: u32,
    /// Timeout of one non-blocking command, in milliseconds. Default 10,000. Zero is not allowed.
    pub response_timeout_ms: Millis,
    /// Timeout for connecting, in milliseconds. Default 5,000. Zero is not allowed.
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

/// Settings of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkerSettings {
    /// The worker's name. Default: the host's name, the process id and a random part.
    pub id: Option<WorkerId>,
    /// Namespaces that the worker serves in addition to `namespace`; they take turns at its slots.
    /// Default none.
    pub namespaces: Vec<Namespace>,
    /// Maximum number of jobs at once. Zero (the default) means one for each core.
    pub slots: u32,
    /// Tags that the worker offers: it claims jobs whose tags are all among these. Default `cpu`. A
    /// worker with GPUs also offers `gpu` and the tags of their models, and a worker without GPUs
    /// never offers `gpu`.
    pub tags: BTreeSet<Tag>,
    /// Lease time of a job, in milliseconds: without a renewal for this time, another worker takes
    /// the job. The worker renews a lease every third of it. Default 15,000; at least 1,000.
    pub lease_ms: Millis,
    /// Time that a stopping worker waits for running jobs before it gives them back, in
    /// milliseconds. Default 30,000. Zero gives them back at once.
    pub grace_ms: Millis,
    /// Address of the health and metrics server: `host:port`. Empty turns it off. Default
    /// `127.0.0.1:9464`.
    pub http: String,
    /// Maximum size of a job's payload. Default 1 MiB, at most 16 MiB.
    pub max_payload: ByteCount,
    /// Maximum number of bytes that the result of one job may return: twice its limit `output`,
    /// plus `fetch_bytes` and `display_total`. A job whose limits exceed it is rejected. Default 40
    /// MiB, which is also the maximum.
    pub max_result: ByteCount,
    /// Number of times that a job may be lost with its worker before it is given up. Default 3.
    pub max_lost: u32,
    /// Time for which a job that needs more than a worker has free may be passed over for jobs that
    /// fit, in milliseconds; then a worker that is large enough reserves capacity for it. Zero
    /// reserves capacity at once. Default 10,000.
    pub reserve_after_ms: Millis,
    /// Maximum number of model servers loaded at once. An idle one is stopped to make room for
    /// another, and an image's `min_warm` may keep all but one loaded. Zero serves no jobs of kind
    /// `infer`. Default 4.
    pub models: u32,
    /// Images whose models programs may call, among those that their job names: `smollm2,embed`. An
    /// empty list (the default) allows every image.
    pub program_models: Vec<ImageName>,
    /// Maximum number of model calls of one program in total. Zero allows no program any call.
    /// Default 1,000.
    pub program_calls: u32,
    /// The folder with the secrets that jobs may name: one file for each secret, and `policy.toml`,
    /// which lists the tenants and images that may use each secret. Default none: no secret is
    /// available.
    pub secrets: Option<PathBuf>,
    /// Maximum number of open model calls of one program; further calls wait. Default 8. Zero is
    /// not allowed.
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
            max_payload: sandhog_core::wire::MAX_PAYLOAD,
            max_result: sandhog_core::wire::MAX_RESULT,
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

/// The value of `sandbox.engine` for a machine that only uses the queue.
pub const NO_ENGINE: &str = "none";

/// Forms of an address in `sandbox.engine`. A provider of sandboxes is chosen by the scheme.
pub(crate) const ENGINE_ADDRESSES: &[&str] =
    &["unix:///path", "tcp://host:port", "keepers:///directory"];

/// First part of an address in `sandbox.engine` that names a directory of keepers' sockets. The
/// path of the directory follows.
pub const KEEPERS_SCHEME: &str = "keepers://";

/// Settings of the container engine and of containers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SandboxSettings {
    /// The container engine: `unix:///path` or `tcp://host:port`, or `none` on a machine that has
    /// no engine and only uses the queue. `keepers:///directory` uses no engine but the keepers
    /// whose sockets, `*.sock`, are in that directory. Default `unix:///var/run/docker.sock`.
    pub engine: String,
    /// The unit in which the container engine makes sandboxes: `sandbox`, a container for each
    /// image, in which a keeper makes a sandbox in milliseconds; `container`, a container for each
    /// sandbox; `auto` (default), `sandbox` where that works, else `container`. Sandboxes with
    /// GPUs, and those under runtimes other than `runc`, `crun` and `youki`, have a container each
    /// in any case. `sandbox` needs an engine on this machine.
    pub unit: SandboxUnit,
    /// The directory in which a worker makes the sockets of the keepers that it starts. The engine
    /// must have it at the same path: for a worker in a container, mount a directory of the
    /// engine's machine at its own path. Default: `XDG_RUNTIME_DIR`, `/run` or the directory for
    /// temporary files, whichever can be written first.
    pub sockets_dir: Option<PathBuf>,
    /// The container runtime for images and jobs that name none, by the engine's name for it.
    /// Default `runc`.
    pub runtime: RuntimeName,
    /// Runtimes that a job may choose in addition to its image's own: `runc,runsc`. Default none.
    pub job_runtimes: Vec<RuntimeName>,
    /// The image reference for a short image name: `{name}` is replaced by the name. Default
    /// `sandhog/{name}:latest`.
    pub image_reference: String,
    /// Memory of the largest job, in bytes. A container has 256 MiB more, for its runner and
    /// zygote. Default 2 GiB.
    pub memory: ByteCount,
    /// CPU of one container, in thousandths of a core. Default 4,000, reduced to the number of
    /// cores of the machine.
    pub cpu_millis: CpuMillis,
    /// Maximum number of processes and threads in one container. Default 4,352.
    pub pids: u32,
    /// The folder that contains one folder for each image to build. Default: `images` in the share
    /// directory beside the installed binary, or in the checkout.
    pub images_dir: Option<PathBuf>,
    /// The runner that is built into images. Default: `sandhog-runner` beside this program.
    pub runner: Option<PathBuf>,
}

impl Default for SandboxSettings {
    fn default() -> Self {
        Self {
            engine: "unix:///var/run/docker.sock".to_owned(),
            unit: SandboxUnit::Auto,
            sockets_dir: None,
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

/// Settings of GPUs for jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GpuSettings {
    /// The GPUs that a worker assigns to jobs: `all` (default) that the driver lists, `none`, or a
    /// list of uuids (`GPU-…`) or numbers, as `nvidia-smi -L` shows them.
    pub devices: GpuChoice,
    /// Maximum number of jobs and model servers at once on one GPU. 1 (the default) assigns whole
    /// GPUs. With more, those that set `gpu.memory` share a GPU as long as their sum fits; the
    /// others still get whole GPUs. Zero is not allowed.
    pub share: u32,
    /// The way in which a container gets its GPUs: `nvidia` (default), by the engine's NVIDIA
    /// runtime; `cdi`, by the names of the Container Device Interface, `nvidia.com/gpu=UUID`;
    /// `none`, not at all: the worker reserves the GPUs and passes their uuids to the program,
    /// which is for tests.
    pub attach: Attach,
    /// Interval between checks of the GPUs' health, in milliseconds. Default 1,000. Zero is not
    /// allowed.
    pub check_ms: Millis,
    /// The path of the driver's management library, NVML. None (the default) means the library that
    /// the system's loader finds; a machine without it has no GPUs. A library that is named here
    /// must exist.
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

/// Settings of the pool of warm containers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PoolSettings {
    /// The jobs that may use a container after its first job: `tenant` (default), other jobs of the
    /// same tenant; `any`, jobs of every tenant; `never`, none. Each job has a fresh cell in any
    /// case.
    pub reuse: Reuse,
    /// Time for which an idle container is kept, in milliseconds. Default 300,000. Zero keeps none.
    pub idle_ms: Millis,
    /// Number of unused containers that the worker keeps ready from its start, by image:
    /// `python=2`; without a number, one. Default none.
    pub warm: Vec<WarmCount>,
    /// Number of unused containers that are kept ready for an image that was used within
    /// `pool.idle_ms`, where each container serves one job, and with keepers while jobs of new
    /// tenants follow one another. Zero (the default) means two for each slot, and at least 4.
    pub ahead: u32,
    /// Maximum number of containers at once, including idle ones and those that are being started
    /// or destroyed. Zero (the default) means four for each slot, and at least 8. With keepers it
    /// is the maximum number of sandboxes, and zero means 256.
    pub containers: u32,
    /// Maximum memory of jobs, counted by their caps, and of idle containers, counted by their
    /// measured use, in bytes. Zero (the default) means nine tenths of the engine machine's memory,
    /// divided by `pool.workers`.
    pub memory: ByteCount,
    /// Maximum CPU of jobs, counted by their caps, in thousandths of a core. Zero (the default)
    /// means all cores of the engine's machine, or one for each slot if there are more slots than
    /// cores, divided by `pool.workers`.
    pub cpu_millis: CpuMillis,
    /// Number of workers that share the engine's machine, this one included. Default 1.
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

/// Settings of logging.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// A `tracing` filter, such as `info` or `sandhog_worker=debug`. Default `info` for workers,
    /// `warn` elsewhere.
    pub filter: Option<String>,
    /// The format of log lines: `text` (default) or `json`.
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

/// Settings of tracing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetrySettings {
    /// The receiver of the workers' spans: the address of an OTLP receiver that accepts HTTP, such
    /// as `http://127.0.0.1:4318`; `/v1/traces` is appended. Default: the standard
    /// `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, else `OTEL_EXPORTER_OTLP_ENDPOINT`, else no spans are
    /// sent. Empty sends none in any case.
    pub otlp: Option<String>,
}

/// Settings of the Redis server that `sandhog up` starts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StateSettings {
    /// The data directory. Default `$XDG_STATE_HOME/sandhog`, else `~/.local/state/sandhog`.
    pub dir: Option<PathBuf>,
}
