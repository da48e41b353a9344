//! The connection to Docker.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bollard::{API_DEFAULT_VERSION, Docker};
use sandhog_config::{Attach, SandboxSettings};
use sandhog_core::id::{Namespace, WorkerId};

use super::engine_facts::{engine_facts, require_api};
use super::labels::owner_labels;
use crate::sandbox::background_tasks::BackgroundTasks;
use crate::sandbox::{Cause, EngineFacts, SandboxError, SandboxOwner};

/// Time after which the engine must have begun its answer, in seconds. Creating containers on a
/// loaded machine takes seconds; a request that takes a minute is considered lost.
const RESPONSE_TIMEOUT_S: u64 = 60;

/// Timeout for negotiating the API version and reading the engine's facts.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection to the container engine, on behalf of one worker. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Engine {
    shared: Arc<EngineInner>,
}

#[derive(Debug)]
struct EngineInner {
    docker: Docker,
    settings: SandboxSettings,
    attach: Attach,
    owner: SandboxOwner,
    facts: EngineFacts,
    /// Distinguishes the container names of this connection from those of an earlier process with
    /// the same worker id.
    name_suffix: u16,
    started: AtomicU64,
    background: BackgroundTasks,
}

impl Engine {
    /// Connects and agrees on an API version. The containers belong to `owner`, and get their GPUs
    /// by the method `attach`.
    ///
    /// # Errors
    /// If the address is not valid, no engine answers there, or the engine is too old.
    pub async fn connect(
        settings: &SandboxSettings,
        attach: Attach,
        owner: SandboxOwner,
    ) -> Result<Self, SandboxError> {
        let docker = client(&settings.engine)?;
        let (docker, info) = with_timeout(&settings.engine, async {
            let docker = docker.negotiate_version().await?;
            let info = docker.info().await?;
            Ok((docker, info))
        })
        .await?;
        let api_version = docker.client_version().to_string();
        require_api(&info, &api_version)?;
        Ok(Self {
            shared: Arc::new(EngineInner {
                docker,
                settings: settings.clone(),
                attach,
                owner,
                facts: engine_facts(info, &api_version, &settings.engine),
                name_suffix: rand::random(),
                started: AtomicU64::new(0),
                background: BackgroundTasks::default(),
            }),
        })
    }

    /// The facts about the engine and its machine, as read when connecting.
    #[must_use]
    pub fn facts(&self) -> &EngineFacts {
        &self.shared.facts
    }

    pub(super) fn docker(&self) -> &Docker {
        &self.shared.docker
    }

    pub(super) fn settings(&self) -> &SandboxSettings {
        &self.shared.settings
    }

    pub(super) fn namespace(&self) -> &Namespace {
        &self.shared.owner.namespace
    }

    /// Returns the labels that identify the owner of this connection's containers.
    pub(super) fn owner_labels(&self) -> Vec<(&'static str, String)> {
        let owner = &self.shared.owner;
        owner_labels(&owner.namespace, owner.queue)
    }

    pub(super) fn attach(&self) -> Attach {
        self.shared.attach
    }

    pub(super) fn worker(&self) -> &WorkerId {
        &self.shared.owner.worker
    }

    /// The tasks that remove containers.
    pub(super) fn background(&self) -> &BackgroundTasks {
        &self.shared.background
    }

    /// Returns a container name that no other container has.
    pub(super) fn next_name(&self) -> String {
        let EngineInner {
            owner,
            name_suffix,
            started,
            ..
        } = &*self.shared;
        let worker = &owner.worker;
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
