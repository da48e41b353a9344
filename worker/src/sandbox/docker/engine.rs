//! The connection to Docker.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bollard::{API_DEFAULT_VERSION, Docker};
use sandhog_config::{Attach, SandboxSettings};
use sandhog_core::id::{Namespace, RuntimeName, WorkerId};
use sandhog_core::limits::Limits;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::engine_facts::{engine_facts, require_api};
use super::image_cache::ImageCache;
use super::labels::owner_labels;
use crate::sandbox::shape_policy::ShapePolicy;
use crate::sandbox::{Cause, EngineFacts, Image, SandboxError, Shape};

/// Time after which the engine must have begun its answer, in seconds. Creating containers on a
/// loaded machine takes seconds; a request that takes a minute is considered lost.
const RESPONSE_TIMEOUT_S: u64 = 60;

/// Timeout for negotiating the API version, reading the engine's facts, and a ping.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection to the container engine, on behalf of one worker. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Engine {
    shared: Arc<EngineInner>,
    queue: Option<Uuid>,
    attach: Attach,
}

#[derive(Debug)]
struct EngineInner {
    docker: Docker,
    settings: SandboxSettings,
    namespace: Namespace,
    worker: WorkerId,
    facts: EngineFacts,
    /// Distinguishes the container names of this connection from those of an earlier process with
    /// the same worker id.
    name_suffix: u16,
    started: AtomicU64,
    images: ImageCache,
    shapes: ShapePolicy,
    removals: TaskTracker,
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
        let (docker, info) = with_timeout(&settings.engine, async {
            let docker = docker.negotiate_version().await?;
            let info = docker.info().await?;
            Ok((docker, info))
        })
        .await?;
        let facts = engine_facts(info, docker.client_version().to_string());
        require_api(&facts)?;
        facts.require_runtime(&settings.runtime)?;
        Ok(Self {
            shared: Arc::new(EngineInner {
                docker,
                settings: settings.clone(),
                namespace: namespace.clone(),
                worker: worker.clone(),
                facts,
                name_suffix: rand::random(),
                started: AtomicU64::new(0),
                images: ImageCache::default(),
                shapes: ShapePolicy::new(settings.clone()),
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
        with_timeout(endpoint, self.shared.docker.ping()).await?;
        Ok(())
    }

    /// Returns the runtime for a job of this image: the runtime that the job asks for if that is
    /// allowed, else the image's, else the configured one.
    ///
    /// # Errors
    /// [`SandboxError::RuntimeRefused`] if neither the image nor a setting lets jobs choose it.
    pub fn runtime(
        &self,
        image: &Image,
        wish: Option<&RuntimeName>,
    ) -> Result<RuntimeName, SandboxError> {
        self.shared.shapes.runtime(image, wish)
    }

    /// Returns the shape of this image's containers where cells have caps of their own: the caps
    /// from the settings.
    #[must_use]
    pub fn shape(&self, image: &Image) -> Shape {
        self.shared.shapes.shape(image)
    }

    /// Returns the shape of a container for a job with these caps under this runtime, as far as is
    /// known. Until the first container of a runtime has started, its cells are assumed to have
    /// caps of their own; the caller must call this again after the start.
    #[must_use]
    pub fn shape_for(&self, runtime: &RuntimeName, limits: &Limits) -> Shape {
        self.shared.shapes.shape_for(runtime, limits)
    }

    /// Waits until every container that was dropped or destroyed so far is gone.
    ///
    /// # Cancel safety
    /// Cancel safe: the removals go on in the background.
    pub async fn wait_for_removals(&self) {
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
        owner_labels(&self.shared.namespace, self.queue)
    }

    pub(super) fn attach(&self) -> Attach {
        self.attach
    }

    pub(super) fn worker(&self) -> &WorkerId {
        &self.shared.worker
    }

    pub(super) fn images(&self) -> &ImageCache {
        &self.shared.images
    }

    pub(super) fn shapes(&self) -> &ShapePolicy {
        &self.shared.shapes
    }

    /// Runs `work` in the background. [`Engine::wait_for_removals`] waits for its end.
    pub(crate) fn spawn_background(
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
        let EngineInner {
            worker,
            name_suffix,
            started,
            ..
        } = &*self.shared;
        let n = started.fetch_add(1, Ordering::Relaxed);
        format!("sandhog-{worker}-{name_suffix:04x}-{n}")
    }
}

fn client(endpoint: &str) -> Result<Docker, SandboxError> {
    let connected = if endpoint.starts_with("unix:///") {
        Docker::connect_with_unix(endpoint, RESPONSE_TIMEOUT_S, API_DEFAULT_VERSION)
    } else if endpoint
        .strip_prefix("tcp://")
        .is_some_and(|host| !host.is_empty())
    {
        Docker::connect_with_http(endpoint, RESPONSE_TIMEOUT_S, API_DEFAULT_VERSION)
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
        Some((_, message)) => SandboxError::Unreachable {
            endpoint,
            source: message.into(),
        },
        None => SandboxError::Unreachable { endpoint, source },
    }
}

/// Returns the engine's answer, or an error if it does not answer within [`CONNECT_TIMEOUT`].
async fn with_timeout<T>(
    endpoint: &str,
    answer: impl Future<Output = Result<T, bollard::errors::Error>>,
) -> Result<T, SandboxError> {
    match tokio::time::timeout(CONNECT_TIMEOUT, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(source)) => Err(unreachable(endpoint, source.into())),
        Err(elapsed) => Err(unreachable(endpoint, elapsed.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_connection_tells_what_the_system_said() {
        #[derive(Debug, thiserror::Error)]
        #[error("client error (Connect)")]
        struct Layer(#[source] io::Error);
        let layered = |kind: io::ErrorKind| unreachable("unix:///x", Layer(kind.into()).into());
        let error = layered(io::ErrorKind::ConnectionRefused);
        assert_eq!(
            sandhog_core::error_chain::error_chain(&error),
            "no container engine answers at unix:///x: connection refused"
        );
        let error = layered(io::ErrorKind::PermissionDenied);
        assert_eq!(
            sandhog_core::error_chain::error_chain(&error),
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
