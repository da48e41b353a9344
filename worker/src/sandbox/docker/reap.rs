//! Removal of containers: the worker's own after use, and those that dead workers left behind.

use std::collections::HashMap;
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error as DockerError;
use bollard::query_parameters::{
    ListContainersOptionsBuilder, RemoveContainerOptionsBuilder, WaitContainerOptionsBuilder,
};
use futures_util::StreamExt;
use futures_util::stream;
use sandhog_core::id::WorkerId;

use super::Engine;
use super::container_info::ContainerInfo;
use super::labels::{IMAGE_LABEL, WORKER_LABEL};
use crate::sandbox::SandboxError;

/// Number of concurrent removals. The engine works on few at a time anyway.
const CONCURRENT_REMOVALS: usize = 4;

/// Number of attempts to remove a container before it is left to the next reaping.
const REMOVAL_ATTEMPTS: u32 = 3;

/// Delay after a failed removal.
const REMOVAL_RETRY_DELAY: Duration = Duration::from_millis(300);

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
            .map_err(|source| SandboxError::EngineRequest {
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

    async fn remove_where(&self, is_doomed: impl Fn(&str) -> bool) -> Result<usize, SandboxError> {
        let mut found = self.list().await?;
        found.retain(|container| is_doomed(&container.worker));
        let count = found.len();
        let results: Vec<_> = stream::iter(found)
            .map(|container| async move {
                remove(self.docker(), &container.id)
                    .await
                    .map_err(|source| (container.name, source))
            })
            .buffer_unordered(CONCURRENT_REMOVALS)
            .collect()
            .await;
        match results.into_iter().find_map(Result::err) {
            None => Ok(count),
            Some((name, source)) => Err(SandboxError::EngineRequest {
                step: "remove container",
                subject: name,
                source: source.into(),
            }),
        }
    }

    /// Removes one container. If the engine keeps failing, the error is logged and the container is
    /// left to the next worker's reaper.
    pub(super) async fn discard(&self, name: &str) {
        for attempt in 1..=REMOVAL_ATTEMPTS {
            match remove(self.docker(), name).await {
                Ok(()) => return,
                Err(error) if attempt == REMOVAL_ATTEMPTS => {
                    tracing::warn!(container = name, %error, "container left for the reaper");
                }
                Err(error) => {
                    tracing::debug!(container = name, %error, "container not removed yet");
                    tokio::time::sleep(REMOVAL_RETRY_DELAY).await;
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
