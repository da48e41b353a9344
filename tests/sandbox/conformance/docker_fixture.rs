//! Fixture of the requirements over Docker.

use std::collections::HashMap;

use bollard::Docker;
use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{
    CreateContainerOptions, KillContainerOptionsBuilder, ListContainersOptionsBuilder,
    StartContainerOptions, WaitContainerOptions,
};
use futures_util::StreamExt;
use sandhog_config::{Attach, PoolSettings, SandboxSettings, SandboxUnit};
use sandhog_core::id::{ImageName, Namespace};
use sandhog_testkit::containers::NAMESPACE_LABEL;
use sandhog_testkit::environment;
use sandhog_worker::sandbox::{self, SandboxOwner, Sandboxes};

use crate::provider_fixture::{ProviderFixture, new_namespace};

/// Docker, with a plain client beside the code under test.
pub(crate) struct DockerFixture {
    docker: Docker,
    namespace: Namespace,
}

impl ProviderFixture for DockerFixture {
    async fn new() -> Self {
        let docker = Docker::connect_with_local_defaults().unwrap();
        Self {
            docker: docker.negotiate_version().await.unwrap(),
            namespace: new_namespace(),
        }
    }

    async fn connect(&self, worker: &str) -> Sandboxes {
        let owner = SandboxOwner {
            namespace: self.namespace.clone(),
            worker: worker.parse().unwrap(),
            queue: None,
        };
        let settings = SandboxSettings {
            image_reference: environment::image_reference(),
            unit: SandboxUnit::Container,
            ..SandboxSettings::default()
        };
        let pool = PoolSettings::default();
        sandbox::connect(&settings, &pool, Attach::Nvidia, owner)
            .await
            .expect("the container engine answers: start dockerd, or run scripts/test")
    }

    fn image(&self) -> ImageName {
        "python".parse().unwrap()
    }

    async fn containers(&self) -> Vec<String> {
        let label = format!("{NAMESPACE_LABEL}={}", self.namespace);
        let options = ListContainersOptionsBuilder::new()
            .all(true)
            .filters(&HashMap::from([("label", vec![label])]))
            .build();
        let found = self.docker.list_containers(Some(options)).await.unwrap();
        let mut names: Vec<String> = found
            .into_iter()
            .flat_map(|container| container.names.unwrap_or_default())
            .map(|name| name.trim_start_matches('/').to_owned())
            .collect();
        names.sort();
        names
    }

    async fn kill(&self, container: &str) {
        let options = KillContainerOptionsBuilder::new().signal("SIGKILL").build();
        self.docker
            .kill_container(container, Some(options))
            .await
            .unwrap();
    }

    /// Kills the container's first process from outside, without the engine's knowledge.
    async fn run_out_of_memory(&self, container: &str) {
        let inspected = self.docker.inspect_container(container, None).await;
        let inspected = inspected.unwrap();
        let pid = inspected.state.and_then(|state| state.pid);
        let body = ContainerCreateBody {
            image: inspected.image,
            entrypoint: Some(vec!["/bin/bash".to_owned(), "-c".to_owned()]),
            cmd: Some(vec![format!("kill -9 {}", pid.unwrap())]),
            host_config: Some(HostConfig {
                pid_mode: Some("host".to_owned()),
                network_mode: Some("none".to_owned()),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let options = None::<CreateContainerOptions>;
        let killer = self.docker.create_container(options, body).await.unwrap();
        self.docker
            .start_container(&killer.id, None::<StartContainerOptions>)
            .await
            .unwrap();
        let options = None::<WaitContainerOptions>;
        let ended = self.docker.wait_container(&killer.id, options).next().await;
        ended.expect("it ends").expect("it kills the process");
        self.docker
            .remove_container(&killer.id, None)
            .await
            .unwrap();
    }
}
