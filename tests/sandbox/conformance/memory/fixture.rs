//! Fixture of the requirements over the provider in memory.

use sandhog_config::SandboxSettings;
use sandhog_core::id::{ImageName, Namespace};
use sandhog_worker::sandbox::{SandboxOwner, Sandboxes};

use super::engine::{IMAGE, MemoryEngine};
use super::provider::MemoryProvider;
use crate::provider_fixture::{ProviderFixture, new_namespace};

/// An engine in memory for one test.
pub(crate) struct MemoryFixture {
    engine: MemoryEngine,
    namespace: Namespace,
}

impl ProviderFixture for MemoryFixture {
    async fn new() -> Self {
        Self {
            engine: MemoryEngine::default(),
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
            engine: "memory://test".to_owned(),
            ..SandboxSettings::default()
        };
        Sandboxes::new(MemoryProvider::parts(self.engine.clone(), owner), &settings)
    }

    fn image(&self) -> ImageName {
        IMAGE.parse().unwrap()
    }

    async fn containers(&self) -> Vec<String> {
        self.engine.containers().keys().cloned().collect()
    }

    async fn kill(&self, container: &str) {
        self.engine.end(container, false);
    }

    async fn run_out_of_memory(&self, container: &str) {
        self.engine.end(container, true);
    }
}
