//! The connection to the container engine.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bollard::models::{SystemInfo, SystemInfoCgroupVersionEnum};
use bollard::{API_DEFAULT_VERSION, Docker};
use sandhog_common::config::{Attach, SandboxSettings};
use sandhog_common::id::{ImageName, Namespace, RuntimeName, WorkerId};
use sandhog_common::queue::MachineFacts;
use sandhog_common::units::{ByteCount, CpuMillis};
use sha2::{Digest as _, Sha256};
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::image::Seen;
use super::spec::{NAMESPACE_LABEL, QUEUE_LABEL};
use super::{Cause, SandboxError};

/// How long the engine may take to begin its answer, in seconds. Creating containers on a loaded machine takes
/// seconds; a request that takes a minute is lost.
const ANSWER_WITHIN_S: u64 = 60;

/// The oldest version of the engine's API that has all that sandboxes need: that of Docker Engine
/// 20.10.
const OLDEST_API: (u32, u32) = (1, 41);

/// How long the engine may take to say who it is, or that it is there.
const HELLO_WITHIN: Duration = Duration::from_secs(10);

/// A connection to the container engine, on behalf of one worker. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Engine {
    shared: Arc<Shared>,
    queue: Option<Uuid>,
    attach: Attach,
}

#[derive(Debug)]
struct Shared {
    docker: Docker,
    settings: SandboxSettings,
    namespace: Namespace,
    worker: WorkerId,
    facts: EngineFacts,
    /// Parts the container names of this connection from those of an earlier process with the same worker id.
    mark: u16,
    started: AtomicU64,
    seen: Mutex<HashMap<ImageName, Seen>>,
    /// Runtimes under which the runner cannot cap a cell.
    capless: Mutex<HashSet<RuntimeName>>,
    removals: TaskTracker,
}

/// What an engine says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineFacts {
    /// Its version.
    pub version: String,
    /// The API version spoken with it.
    pub api_version: String,
    /// The kernel its containers run on.
    pub kernel: String,
    /// The runtimes it has, sorted.
    pub runtimes: Vec<String>,
    /// The cgroup version of its machine: 1 or 2.
    pub cgroup_version: u8,
    /// Its machine's cores.
    pub cpus: u32,
    /// Its machine's memory.
    pub memory: ByteCount,
    /// A number made of the engine's own id: workers of one engine have the same; 0 where it has no
    /// id.
    pub machine: u64,
}

impl Engine {
    /// Connects, agrees on an API version and checks that the runtime exists.
    ///
    /// # Errors
    /// When the address is not valid, nothing answers there, or the engine lacks the runtime.
    pub async fn connect(
        settings: &SandboxSettings,
        namespace: &Namespace,
        worker: &WorkerId,
    ) -> Result<Self, SandboxError> {
        let docker = client(&settings.engine)?;
        let (docker, info) = in_time(&settings.engine, async {
            let docker = docker.negotiate_version().await?;
            let info = docker.info().await?;
            Ok((docker, info))
        })
        .await?;
        let facts = EngineFacts::read(info, docker.client_version().to_string());
        facts.require_api()?;
        facts.require(&settings.runtime)?;
        Ok(Self {
            shared: Arc::new(Shared {
                docker,
                settings: settings.clone(),
                namespace: namespace.clone(),
                worker: worker.clone(),
                facts,
                mark: rand::random(),
                started: AtomicU64::new(0),
                seen: Mutex::default(),
                capless: Mutex::default(),
                removals: TaskTracker::new(),
            }),
            queue: None,
            attach: Attach::Nvidia,
        })
    }

    /// The same connection, with another way of giving containers their GPUs.
    #[must_use]
    pub fn attaching(self, attach: Attach) -> Self {
        Self { attach, ..self }
    }

    /// The same connection, for containers that serve the queue of this identity alone. Two queues of one name on
    /// different Redis servers then leave each other's containers alone.
    #[must_use]
    pub fn serving(self, queue: Uuid) -> Self {
        Self {
            queue: Some(queue),
            ..self
        }
    }

    /// What the engine and its machine are, as seen when connecting.
    #[must_use]
    pub fn facts(&self) -> &EngineFacts {
        &self.shared.facts
    }

    /// Asks the engine whether it is there.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn ping(&self) -> Result<(), SandboxError> {
        let endpoint = &self.shared.settings.engine;
        in_time(endpoint, self.shared.docker.ping()).await?;
        Ok(())
    }

    /// Waits until every container that was dropped or destroyed so far is gone.
    ///
    /// # Cancel safety
    /// Safe: the removals go on without it.
    pub async fn settle(&self) {
        self.shared.removals.close();
        self.shared.removals.wait().await;
        self.shared.removals.reopen();
    }

    pub(super) fn docker(&self) -> &Docker {
        &self.shared.docker
    }

    pub(super) fn settings(&self) -> &SandboxSettings {
        &self.shared.settings
    }

    pub(super) fn namespace(&self) -> &Namespace {
        &self.shared.namespace
    }

    /// The labels that say whose a container of this connection is.
    pub(super) fn owner_labels(&self) -> Vec<(&'static str, String)> {
        let mut labels = vec![(NAMESPACE_LABEL, self.shared.namespace.to_string())];
        labels.extend(
            self.queue
                .map(|queue| (QUEUE_LABEL, queue.simple().to_string())),
        );
        labels
    }

    pub(super) fn attach(&self) -> Attach {
        self.attach
    }

    pub(super) fn worker(&self) -> &WorkerId {
        &self.shared.worker
    }

    pub(super) fn capless(&self) -> &Mutex<HashSet<RuntimeName>> {
        &self.shared.capless
    }

    pub(super) fn seen(&self) -> &Mutex<HashMap<ImageName, Seen>> {
        &self.shared.seen
    }

    /// Does something in the background that [`Engine::settle`] waits for.
    pub(crate) fn finish_later(
        &self,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> Option<JoinHandle<()>> {
        // Without a runtime the process is ending: runners end with their standard input, and what does not is left
        // to the next worker's reaper.
        let runtime = tokio::runtime::Handle::try_current().ok()?;
        Some(self.shared.removals.spawn_on(work, &runtime))
    }

    /// A container name no other container has.
    pub(super) fn next_name(&self) -> String {
        let Shared {
            worker,
            mark,
            started,
            ..
        } = &*self.shared;
        let n = started.fetch_add(1, Ordering::Relaxed);
        format!("sandhog-{worker}-{mark:04x}-{n}")
    }
}

fn client(endpoint: &str) -> Result<Docker, SandboxError> {
    let connected = if endpoint.starts_with("unix:///") {
        Docker::connect_with_unix(endpoint, ANSWER_WITHIN_S, API_DEFAULT_VERSION)
    } else if endpoint
        .strip_prefix("tcp://")
        .is_some_and(|host| !host.is_empty())
    {
        Docker::connect_with_http(endpoint, ANSWER_WITHIN_S, API_DEFAULT_VERSION)
    } else {
        return Err(SandboxError::BadEndpoint {
            endpoint: endpoint.to_owned(),
        });
    };
    connected.map_err(|source| unreachable(endpoint, source.into()))
}

/// The error of a connection that failed. Its cause is what the system said, without the layers of
/// the HTTP client.
fn unreachable(endpoint: &str, source: Cause) -> SandboxError {
    let system = std::iter::successors(
        Some::<&(dyn std::error::Error + 'static)>(source.as_ref()),
        |error| error.source(),
    )
    .find_map(|error| error.downcast_ref::<io::Error>())
    .map(|error| (error.kind(), error.to_string()));
    let endpoint = endpoint.to_owned();
    match system {
        Some((io::ErrorKind::PermissionDenied, _)) => SandboxError::Forbidden { endpoint },
        Some((_, said)) => SandboxError::Unreachable {
            endpoint,
            source: said.into(),
        },
        None => SandboxError::Unreachable { endpoint, source },
    }
}

/// What the engine answers, if it does so soon.
async fn in_time<T>(
    endpoint: &str,
    answer: impl Future<Output = Result<T, bollard::errors::Error>>,
) -> Result<T, SandboxError> {
    match tokio::time::timeout(HELLO_WITHIN, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(source)) => Err(unreachable(endpoint, source.into())),
        Err(elapsed) => Err(unreachable(endpoint, elapsed.into())),
    }
}

impl EngineFacts {
    /// Refuses an engine that is too old.
    ///
    /// # Errors
    /// [`SandboxError::OldEngine`], with its version.
    pub fn require_api(&self) -> Result<(), SandboxError> {
        let number = |text: &str| text.trim().parse::<u32>().ok();
        let version = self
            .api_version
            .split_once('.')
            .and_then(|(major, minor)| Some((number(major)?, number(minor)?)));
        match version {
            Some(version) if version < OLDEST_API => Err(SandboxError::OldEngine {
                version: self.version.clone(),
                api_version: self.api_version.clone(),
            }),
            Some(_) | None => Ok(()),
        }
    }

    /// Refuses a runtime the engine does not have.
    ///
    /// # Errors
    /// [`SandboxError::UnknownRuntime`], with those it has.
    pub fn require(&self, runtime: &RuntimeName) -> Result<(), SandboxError> {
        if self.runtimes.iter().any(|known| known == runtime.as_str()) {
            return Ok(());
        }
        Err(SandboxError::UnknownRuntime {
            runtime: runtime.clone(),
            known: self.runtimes.join(", "),
        })
    }

    /// The machine as other workers are told of it; none where the engine has no id to tell it by.
    #[must_use]
    pub fn shared_machine(&self) -> Option<MachineFacts> {
        (self.machine != 0).then_some(MachineFacts {
            id: self.machine,
            memory: self.memory,
            cpu_millis: CpuMillis(1000 * u64::from(self.cpus)),
        })
    }

    fn read(info: SystemInfo, api_version: String) -> Self {
        let mut runtimes: Vec<String> = info.runtimes.unwrap_or_default().into_keys().collect();
        runtimes.sort();
        Self {
            version: info.server_version.unwrap_or_default(),
            api_version,
            kernel: info.kernel_version.unwrap_or_default(),
            runtimes,
            cgroup_version: match info.cgroup_version {
                Some(SystemInfoCgroupVersionEnum::_2) => 2,
                Some(SystemInfoCgroupVersionEnum::_1 | SystemInfoCgroupVersionEnum::EMPTY)
                | None => 1,
            },
            cpus: info
                .ncpu
                .and_then(|n| u32::try_from(n).ok())
                .unwrap_or(1)
                .max(1),
            memory: ByteCount(
                info.mem_total
                    .and_then(|n| u64::try_from(n).ok())
                    .unwrap_or_default(),
            ),
            machine: info.id.as_deref().map_or(0, number),
        }
    }
}

/// A number that stands for a text, the same in every program.
fn number(text: &str) -> u64 {
    let digest = Sha256::digest(text.as_bytes());
    digest
        .iter()
        .take(8)
        .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(api_version: &str) -> EngineFacts {
        EngineFacts {
            version: "19.03.5".to_owned(),
            api_version: api_version.to_owned(),
            kernel: String::new(),
            runtimes: Vec::new(),
            cgroup_version: 1,
            cpus: 1,
            memory: ByteCount(0),
            machine: 0,
        }
    }

    #[test]
    fn an_engine_that_is_too_old_is_refused() {
        for (api_version, good) in [
            ("1.40", false),
            ("1.9", false),
            ("0.99", false),
            ("1.41", true),
            ("1.41\n", true),
            ("1.100", true),
            ("2.0", true),
            ("unknown", true),
        ] {
            assert_eq!(
                facts(api_version).require_api().is_ok(),
                good,
                "{api_version:?}"
            );
        }
        let error = facts("1.40").require_api().unwrap_err();
        assert_eq!(
            error.to_string(),
            "container engine 19.03.5 is too old: it speaks API 1.40, and 1.41 is needed"
        );
    }

    #[test]
    fn a_failed_connection_tells_what_the_system_said() {
        #[derive(Debug, thiserror::Error)]
        #[error("client error (Connect)")]
        struct Layer(#[source] io::Error);
        let layered = |kind: io::ErrorKind| unreachable("unix:///x", Layer(kind.into()).into());
        let error = layered(io::ErrorKind::ConnectionRefused);
        assert_eq!(
            crate::causes::with_causes(&error),
            "no container engine answers at unix:///x: connection refused"
        );
        let error = layered(io::ErrorKind::PermissionDenied);
        assert_eq!(
            crate::causes::with_causes(&error),
            "this user may not use the container engine's socket unix:///x"
        );
        assert!(
            error
                .hint()
                .is_some_and(|hint| hint.contains("usermod -aG docker"))
        );
    }

    #[test]
    fn only_local_and_plain_tcp_engines_are_addresses() {
        for (case, endpoint) in [
            ("no scheme", "/var/run/docker.sock"),
            ("relative socket", "unix://docker.sock"),
            ("no host", "tcp://"),
            ("another scheme", "ssh://host"),
            ("empty", ""),
        ] {
            assert!(
                matches!(client(endpoint), Err(SandboxError::BadEndpoint { .. })),
                "case {case}"
            );
        }
        assert!(client("tcp://127.0.0.1:2375").is_ok());
        let error = client("unix:///nowhere/docker.sock").unwrap_err();
        assert!(matches!(error, SandboxError::Unreachable { .. }));
        assert!(error.hint().is_some());
    }
}
