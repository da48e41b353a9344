//! Removal of containers: the worker's own after use, and those that dead workers left behind.

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

/// Number of concurrent removals. The engine works on few at a time anyway.
const AT_ONCE: usize = 4;

/// Number of attempts to remove a container before it is left to the next reaping.
const TRIES: u32 = 3;

/// Number of polls until the engine reports that a container has ended. With [`END_PAUSE`] this
/// makes ten seconds, because the engine on a busy machine notices the end late.
const END_TRIES: u32 = 200;

/// Time between two polls.
const END_PAUSE: Duration = Duration::from_millis(50);

/// The exit code of a container whose first process was killed.
const KILLED: i64 = 137;

/// Delay after a failed removal.
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
    /// Returns every container of this namespace, including those of other workers. If the queue's
    /// identity is known, only containers of that queue are returned.
    ///
    /// # Errors
    /// If the engine does not answer.
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

    /// Removes the containers of this namespace whose worker is neither in `alive` nor this worker.
    /// Returns their number.
    ///
    /// # Errors
    /// If the engine does not answer. A container whose removal is already under way counts as
    /// removed.
    pub async fn reap(&self, alive: &[WorkerId]) -> Result<usize, SandboxError> {
        let own = self.worker().as_str();
        self.remove_where(|worker| {
            worker != own && !alive.iter().any(|living| living.as_str() == worker)
        })
        .await
    }

    /// Removes every container with this worker's label: the containers of an earlier process
    /// before the first start, or the remaining ones at shutdown. Returns their number.
    ///
    /// # Errors
    /// If the engine does not answer.
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

    /// Returns whether this container ended because it ran out of memory. Meant for containers of a
    /// [`Shape`](super::Shape) whose caps are those of the job.
    ///
    /// The engine's `OOMKilled` flag covers most cases. The engine receives the event while the
    /// container's cgroup is being removed, and in one case out of ten the cgroup is gone before
    /// the engine reads it. Therefore a container whose first process was killed also counts,
    /// unless a client asked the engine to kill it: the only other source of such a kill is a
    /// kernel short of memory. If the engine's events are unavailable, the answer is no.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn ran_out_of_memory(&self, name: &str) -> bool {
        for _ in 0..END_TRIES {
            let Ok(found) = self.docker().inspect_container(name, None).await else {
                return false;
            };
            let state = found.state.unwrap_or_default();
            if state.oom_killed == Some(true) {
                return true;
            }
            // The container's streams close before the engine registers its end.
            if state.running == Some(false) {
                let asked = self.was_asked_to_kill(name, state.finished_at.as_deref());
                return state.exit_code == Some(KILLED) && asked.await == Some(false);
            }
            tokio::time::sleep(END_PAUSE).await;
        }
        false
    }

    /// Returns whether a client asked the engine to signal this container before it ended; `None`
    /// if the engine's events are unavailable.
    async fn was_asked_to_kill(&self, name: &str, ended: Option<&str>) -> Option<bool> {
        let ended = DateTime::parse_from_rfc3339(ended?).ok()?;
        // Event times use the engine's clock, in whole seconds, and a kill is logged after it is
        // done.
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
                tracing::debug!(container = name, %error, "cannot read the engine's kill events");
                None
            }
        }
    }

    /// Removes one container. If the engine keeps failing, the error is logged and the container is
    /// left to the next worker's reaper.
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

/// Kills and removes a container, and returns once it is gone. A missing container is a success.
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
        // The removal is already under way: the container ended, and the engine removes ended
        // containers.
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
