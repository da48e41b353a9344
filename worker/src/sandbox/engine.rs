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

/// Time after which the engine must have begun its answer, in seconds. Creating containers on a
/// loaded machine takes seconds; a request that takes a minute is considered lost.
const ANSWER_WITHIN_S: u64 = 60;

/// The oldest version of the engine's API that has everything that sandboxes need: that of Docker
/// Engine 20.10.
const OLDEST_API: (u32, u32) = (1, 41);

/// Timeout for negotiating the API version, reading the engine's facts, and a ping.
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
    /// Distinguishes the container names of this connection from those of an earlier process with
    /// the same worker id.
    mark: u16,
    started: AtomicU64,
    seen: Mutex<HashMap<ImageName, Seen>>,
    /// Runtimes under which the runner cannot cap the resources of a single cell.
    capless: Mutex<HashSet<RuntimeName>>,
    removals: TaskTracker,
}

/// Facts that the engine reports about itself and its machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineFacts {
    /// Its version.
    pub version: String,
    /// The API version negotiated with it.
    pub api_version: String,
    /// The kernel its containers run on.
    pub kernel: String,
    /// The runtimes it has, sorted.
    pub runtimes: Vec<String>,
    /// The cgroup version of its machine: 1 or 2.
    pub cgroup_version: u8,
    /// The number of cores of its machine.
    pub cpus: u32,
    /// The memory of its machine.
    pub memory: ByteCount,
    /// A hash of the engine's own id, equal for all workers that use the same engine; 0 if the
    /// engine reports no id.
    pub machine: u64,
}

impl Engine {
    /// Connects, agrees on an API version and checks that the runtime exists.
    ///
    /// # Errors
    /// If the address is not valid, no engine answers there, or the engine lacks the runtime.
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

    /// Returns the same connection with another method of attaching GPUs to containers.
    #[must_use]
    pub fn attaching(self, attach: Attach) -> Self {
        Self { attach, ..self }
    }

    /// Returns the same connection, restricted to containers that serve the queue of this identity.
    /// Two queues of the same name on different Redis servers then leave each other's containers
    /// alone.
    #[must_use]
    pub fn serving(self, queue: Uuid) -> Self {
        Self {
            queue: Some(queue),
            ..self
        }
    }

    /// The facts about the engine and its machine, as read when connecting.
    #[must_use]
    pub fn facts(&self) -> &EngineFacts {
        &self.shared.facts
    }

    /// Checks that the engine answers.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn ping(&self) -> Result<(), SandboxError> {
        let endpoint = &self.shared.settings.engine;
        in_time(endpoint, self.shared.docker.ping()).await?;
        Ok(())
    }

    /// Waits until every container that was dropped or destroyed so far is gone.
    ///
    /// # Cancel safety
    /// Cancel safe: the removals go on in the background.
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

    /// Returns the labels that identify the owner of this connection's containers.
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

    /// Runs `work` in the background. [`Engine::settle`] waits for its end.
    pub(crate) fn finish_later(
        &self,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> Option<JoinHandle<()>> {
        // Without a runtime the process is ending. A runner ends when its standard input closes;
        // the reaper of the next worker removes the containers that remain.
        let runtime = tokio::runtime::Handle::try_current().ok()?;
        Some(self.shared.removals.spawn_on(work, &runtime))
    }

    /// Returns a container name that no other container has.
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

/// Returns the error for a failed connection. Its cause is the error of the operating system,
/// without the layers of the HTTP client.
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

/// Returns the engine's answer, or an error if it does not answer within [`HELLO_WITHIN`].
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
    /// Checks that the engine is not too old.
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

    /// Checks that the engine has a runtime.
    ///
    /// # Errors
    /// [`SandboxError::UnknownRuntime`], which lists the runtimes that the engine has.
    pub fn require(&self, runtime: &RuntimeName) -> Result<(), SandboxError> {
        if self.runtimes.iter().any(|known| known == runtime.as_str()) {
            return Ok(());
        }
        Err(SandboxError::UnknownRuntime {
            runtime: runtime.clone(),
            known: self.runtimes.join(", "),
        })
    }

    /// Returns the facts about the machine that other workers read; `None` if the engine has no id
    /// that identifies it.
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

/// Returns a number derived from a text, the same in every process.
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
