//! Removing containers: one's own when they are done with, and what dead workers left behind.

use std::collections::HashMap;
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error as DockerError;
use bollard::query_parameters::{
    EventsOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
    WaitContainerOptionsBuilder,
};
use chrono::DateTime;
use futures_util::StreamExt;
use futures_util::stream;
use sandhog_common::id::WorkerId;

use super::spec::{IMAGE_LABEL, WORKER_LABEL};
use super::{Engine, SandboxError};

/// Removals under way at once: the engine works on few at a time anyway.
const AT_ONCE: usize = 4;

/// How often a removal is tried before it is left to the next reaping.
const TRIES: u32 = 3;

/// How often the engine is asked whether a container ended that is said to be over: for ten seconds, because an engine on a
/// busy machine hears of it late.
const END_TRIES: u32 = 200;

/// The pause between two such questions.
const END_PAUSE: Duration = Duration::from_millis(50);

/// The exit code of a container whose first process was killed.
const KILLED: i64 = 137;

/// The pause after a removal that failed.
const PAUSE: Duration = Duration::from_millis(300);

/// One container of this namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerInfo {
    /// The engine's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The worker that made it, as its label says.
    pub worker: String,
    /// The image's short name, as its label says.
    pub image: String,
    /// The engine's word for its state, such as `running`.
    pub state: String,
}

impl Engine {
    /// Every container of this namespace, and of this queue where it is known, whoever made it.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn list(&self) -> Result<Vec<ContainerInfo>, SandboxError> {
        let labels = self
            .owner_labels()
            .into_iter()
            .map(|(label, value)| format!("{label}={value}"))
            .collect();
        let options = ListContainersOptionsBuilder::new()
            .all(true)
            .filters(&HashMap::from([("label", labels)]))
            .build();
        let found = self
            .docker()
            .list_containers(Some(options))
            .await
            .map_err(|source| SandboxError::Engine {
                step: "list",
                subject: format!("the containers of namespace {}", self.namespace()),
                source: source.into(),
            })?;
        Ok(found
            .into_iter()
            .map(|container| {
                let mut labels = container.labels.unwrap_or_default();
                ContainerInfo {
                    id: container.id.unwrap_or_default(),
                    name: container
                        .names
                        .and_then(|names| names.into_iter().next())
                        .map(|name| name.trim_start_matches('/').to_owned())
                        .unwrap_or_default(),
                    worker: labels.remove(WORKER_LABEL).unwrap_or_default(),
                    image: labels.remove(IMAGE_LABEL).unwrap_or_default(),
                    state: container.state.map(|s| s.to_string()).unwrap_or_default(),
                }
            })
            .collect())
    }

    /// Removes the containers of this namespace whose worker is neither in `alive` nor this one; says how many.
    ///
    /// # Errors
    /// When the engine does not answer. A container that is already going counts as removed.
    pub async fn reap(&self, alive: &[WorkerId]) -> Result<usize, SandboxError> {
        let own = self.worker().as_str();
        self.remove_where(|worker| {
            worker != own && !alive.iter().any(|living| living.as_str() == worker)
        })
        .await
    }

    /// Removes every container that carries this worker's name: those of an earlier process before the first is
    /// started, or what is left after the last was destroyed. Says how many.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn reap_own(&self) -> Result<usize, SandboxError> {
        let own = self.worker().as_str();
        self.remove_where(|worker| worker == own).await
    }

    async fn remove_where(&self, doomed: impl Fn(&str) -> bool) -> Result<usize, SandboxError> {
        let mut found = self.list().await?;
        found.retain(|container| doomed(&container.worker));
        let count = found.len();
        let results: Vec<_> = stream::iter(found)
            .map(|container| async move {
                remove(self.docker(), &container.id)
                    .await
                    .map_err(|source| (container.name, source))
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        match results.into_iter().find_map(Result::err) {
            None => Ok(count),
            Some((name, source)) => Err(SandboxError::Engine {
                step: "remove container",
                subject: name,
                source: source.into(),
            }),
        }
    }

    /// Whether this container, of a [`Shape`](super::Shape) that caps the job, ended because it ran out of memory.
    ///
    /// The engine says so of most that did. It is told by the kernel while the container's group is taken down, and
    /// one in ten was gone before it looked. So a container whose first process was killed, and that nobody had the
    /// engine kill, is taken for one: a kernel that is short of memory is who else kills. Where the engine cannot say,
    /// it did not.
    ///
    /// # Cancel safety
    /// Safe: it only asks.
    pub async fn ran_out_of_memory(&self, name: &str) -> bool {
        for _ in 0..END_TRIES {
            let Ok(found) = self.docker().inspect_container(name, None).await else {
                return false;
            };
            let state = found.state.unwrap_or_default();
            if state.oom_killed == Some(true) {
                return true;
            }
            // Its streams close before the engine knows that it ended.
            if state.running == Some(false) {
                let asked = self.was_asked_to_kill(name, state.finished_at.as_deref());
                return state.exit_code == Some(KILLED) && asked.await == Some(false);
            }
            tokio::time::sleep(END_PAUSE).await;
        }
        false
    }

    /// Whether anybody had the engine send a signal to this container, which ended then; `None` where it does not say.
    async fn was_asked_to_kill(&self, name: &str, ended: Option<&str>) -> Option<bool> {
        let ended = DateTime::parse_from_rfc3339(ended?).ok()?;
        // By the engine's clock, like all it says; in whole seconds, and what was asked is noted when it is done.
        let until = ended.timestamp().saturating_add(2).to_string();
        let filters = HashMap::from([
            ("type", vec!["container"]),
            ("event", vec!["kill"]),
            ("container", vec![name]),
        ]);
        let options = EventsOptionsBuilder::new()
            .since("1")
            .until(&until)
            .filters(&filters)
            .build();
        let mut events = std::pin::pin!(self.docker().events(Some(options)));
        match events.next().await {
            None => Some(false),
            Some(Ok(_kill)) => Some(true),
            Some(Err(error)) => {
                tracing::debug!(container = name, %error, "the engine does not say who killed a container");
                None
            }
        }
    }

    /// Removes one container; what the engine refuses is logged and left to the reaper of the next worker.
    pub(super) async fn discard(&self, name: &str) {
        for attempt in 1..=TRIES {
            match remove(self.docker(), name).await {
                Ok(()) => return,
                Err(error) if attempt == TRIES => {
                    tracing::warn!(container = name, %error, "container left for the reaper");
                }
                Err(error) => {
                    tracing::debug!(container = name, %error, "container not removed yet");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

/// Kills and removes a container, and returns once it is gone. Gone already is as good.
async fn remove(docker: &Docker, id: &str) -> Result<(), DockerError> {
    let options = RemoveContainerOptionsBuilder::new()
        .force(true)
        .v(true)
        .build();
    match docker.remove_container(id, Some(options)).await {
        Ok(()) => Ok(()),
        Err(DockerError::DockerResponseServerError {
            status_code: 404, ..
        }) => Ok(()),
        // Its removal is under way: it ended by itself and the engine removes what ends.
        Err(DockerError::DockerResponseServerError {
            status_code: 409, ..
        }) => until_gone(docker, id).await,
        Err(error) => Err(error),
    }
}

async fn until_gone(docker: &Docker, id: &str) -> Result<(), DockerError> {
    let options = WaitContainerOptionsBuilder::new()
        .condition("removed")
        .build();
    match docker.wait_container(id, Some(options)).next().await {
        None | Some(Ok(_) | Err(DockerError::DockerContainerWaitError { .. })) => Ok(()),
        Some(Err(DockerError::DockerResponseServerError {
            status_code: 404, ..
        })) => Ok(()),
        Some(Err(error)) => Err(error),
    }
}
