//! Fixture of the requirements over Docker with keepers that the worker starts.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};

use bollard::Docker;
use bollard::query_parameters::ListContainersOptionsBuilder;
use sandhog_config::{Attach, PoolSettings, SandboxSettings, SandboxUnit};
use sandhog_core::id::{ImageName, Namespace};
use sandhog_core::units::ByteCount;
use sandhog_testkit::containers::NAMESPACE_LABEL;
use sandhog_testkit::environment;
use sandhog_testkit::eventually::eventually_async;
use sandhog_worker::sandbox::{self, SandboxOwner, Sandboxes};

use crate::keeper_probe::KeeperProbe;
use crate::provider_fixture::{ProviderFixture, WAIT_TIMEOUT, new_namespace};

/// Docker, with a plain client of the engine and of the keepers.
pub(crate) struct DockerKeepersFixture {
    docker: Docker,
    namespace: Namespace,
    /// The keepers that were found so far, by their container.
    keepers: Mutex<HashMap<String, KeeperProbe>>,
}

impl DockerKeepersFixture {
    /// Returns the name of each container of the namespace, and the directory of its socket.
    async fn found(&self) -> Vec<(String, PathBuf)> {
        let label = format!("{NAMESPACE_LABEL}={}", self.namespace);
        let options = ListContainersOptionsBuilder::new()
            .all(true)
            .filters(&HashMap::from([("label", vec![label])]))
            .build();
        let found = self.docker.list_containers(Some(options)).await.unwrap();
        let found = found.into_iter().filter_map(|container| {
            let name = container.names?.into_iter().next()?;
            let mount = container.mounts?.into_iter().next()?;
            Some((
                name.trim_start_matches('/').to_owned(),
                mount.source?.into(),
            ))
        });
        found.collect()
    }

    fn keepers(&self) -> MutexGuard<'_, HashMap<String, KeeperProbe>> {
        self.keepers.lock().unwrap()
    }

    fn with_keeper_of(&self, sandbox: &str, act: impl FnOnce(&KeeperProbe)) {
        let keepers = self.keepers();
        let mut all = keepers.values();
        act(all
            .find(|keeper| keeper.made(sandbox))
            .expect("a keeper made it"));
    }
}

impl ProviderFixture for DockerKeepersFixture {
    async fn new() -> Self {
        let docker = Docker::connect_with_local_defaults().unwrap();
        Self {
            docker: docker.negotiate_version().await.unwrap(),
            namespace: new_namespace(),
            keepers: Mutex::default(),
        }
    }

    async fn connect(&self, worker: &str) -> Sandboxes {
        let owner = SandboxOwner {
            namespace: self.namespace.clone(),
            worker: worker.parse().unwrap(),
            queue: None,
        };
        let settings = SandboxSettings {
            unit: SandboxUnit::Sandbox,
            memory: ByteCount::mib(256),
            image_reference: environment::image_reference(),
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
        let found = self.found().await;
        let mut keepers = self.keepers();
        keepers.retain(|name, _| found.iter().any(|(now, _)| now == name));
        for (name, folder) in found {
            if !keepers.contains_key(&name)
                && let Some(keeper) = KeeperProbe::new(name.clone(), folder.join("keeper.sock"))
            {
                keepers.insert(name, keeper);
            }
        }
        let mut sandboxes: Vec<String> =
            keepers.values().flat_map(KeeperProbe::sandboxes).collect();
        sandboxes.sort();
        sandboxes
    }

    async fn kill(&self, container: &str) {
        self.containers().await;
        self.with_keeper_of(container, KeeperProbe::kill_only_runner);
    }

    async fn run_out_of_memory(&self, container: &str) {
        self.containers().await;
        self.with_keeper_of(container, KeeperProbe::exhaust_only_sandbox);
    }

    /// Waits until the keepers are gone too.
    async fn until_nothing_is_left(&self) {
        eventually_async(WAIT_TIMEOUT, async || {
            let found = self.found().await;
            if found.is_empty() {
                return Ok(());
            }
            Err(format!("containers {found:?} are left"))
        })
        .await;
    }
}
