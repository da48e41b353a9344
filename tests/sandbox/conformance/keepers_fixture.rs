//! Fixture of the requirements over a keeper that the worker did not start: the worker has a
//! directory of sockets and no engine.

use sandhog_config::{Attach, PoolSettings, SandboxSettings};
use sandhog_core::id::{ImageName, Namespace};
use sandhog_testkit::eventually::eventually_async;
use sandhog_testkit::keeper_container::KeeperContainer;
use sandhog_worker::sandbox::{self, SandboxOwner, Sandboxes};
use tempfile::TempDir;

use crate::keeper_probe::KeeperProbe;
use crate::provider_fixture::{ProviderFixture, WAIT_TIMEOUT, new_namespace};

/// A container with a keeper, and the directory of its socket.
pub(crate) struct KeepersFixture {
    _container: KeeperContainer,
    directory: TempDir,
    keeper: KeeperProbe,
    namespace: Namespace,
}

impl ProviderFixture for KeepersFixture {
    async fn new() -> Self {
        let namespace = new_namespace();
        let directory = TempDir::new().unwrap();
        let container = KeeperContainer::start(directory.path());
        let socket = directory.path().join("python.sock");
        let keeper = eventually_async(WAIT_TIMEOUT, async || {
            KeeperProbe::new(container.name().to_owned(), socket.clone())
                .ok_or_else(|| "no keeper answers".to_owned())
        })
        .await;
        Self {
            _container: container,
            directory,
            keeper,
            namespace,
        }
    }

    async fn connect(&self, worker: &str) -> Sandboxes {
        let owner = SandboxOwner {
            namespace: self.namespace.clone(),
            worker: worker.parse().unwrap(),
            queue: None,
        };
        let settings = SandboxSettings {
            engine: format!("keepers://{}", self.directory.path().display()),
            ..SandboxSettings::default()
        };
        let pool = PoolSettings::default();
        let connected = sandbox::connect(&settings, &pool, Attach::None, owner).await;
        connected.unwrap()
    }

    fn image(&self) -> ImageName {
        "python".parse().unwrap()
    }

    async fn containers(&self) -> Vec<String> {
        self.keeper.sandboxes()
    }

    async fn kill(&self, _container: &str) {
        self.keeper.kill_only_runner();
    }

    async fn run_out_of_memory(&self, _container: &str) {
        self.keeper.exhaust_only_sandbox();
    }
}
