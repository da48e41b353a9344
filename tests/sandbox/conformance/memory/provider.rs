//! The provider of sandboxes in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use sandhog_core::id::{ImageName, WorkerId};
use sandhog_core::units::ByteCount;
use sandhog_worker::sandbox::{
    BackgroundTasks, Container, ContainerResource, EngineFacts, Image, ImageStore, ProviderParts,
    Sandbox, SandboxError, SandboxOwner, SandboxProvider, Shape, StoredImage, open_sandbox,
};

use super::engine::{MemoryContainer, MemoryEngine, image};
use super::runner::MemoryRunner;

/// Capacity of the streams between worker and runner, in bytes.
const STREAM_BYTES: usize = 64 << 10;

/// The provider of one worker.
#[derive(Debug)]
pub(super) struct MemoryProvider {
    engine: MemoryEngine,
    owner: SandboxOwner,
    facts: EngineFacts,
    started: AtomicU64,
    background: BackgroundTasks,
}

impl MemoryProvider {
    /// Connects a worker to the engine.
    pub(super) fn parts(engine: MemoryEngine, owner: SandboxOwner) -> ProviderParts {
        let background = BackgroundTasks::default();
        let provider = Arc::new(Self {
            engine,
            owner,
            facts: EngineFacts {
                version: "memory".to_owned(),
                kernel: "none".to_owned(),
                runtimes: vec!["runc".to_owned()],
                cgroup_version: 2,
                cpus: 4,
                memory: ByteCount::mib(8192),
                is_local: false,
                machine: 0,
                has_keepers: false,
            },
            started: AtomicU64::new(0),
            background: background.clone(),
        });
        ProviderParts {
            sandboxes: Arc::<Self>::clone(&provider),
            images: provider,
            builder: None,
            background,
        }
    }
}

#[async_trait]
impl SandboxProvider for MemoryProvider {
    async fn start(
        &self,
        image: &Image,
        _shape: &Shape,
        resource: Option<ContainerResource>,
    ) -> Result<Sandbox, SandboxError> {
        let present = self.look_up(&image.name).await?;
        let n = self.started.fetch_add(1, Ordering::Relaxed);
        let name = format!("memory-{}-{n}", self.owner.worker);
        let (near, far) = tokio::io::duplex(STREAM_BYTES);
        let running = tokio::spawn(MemoryRunner::new(far).serve());
        let container = MemoryContainer {
            owner: self.owner.clone(),
            is_out_of_memory: false,
            runner: running.abort_handle(),
        };
        self.engine.containers().insert(name.clone(), container);
        let container = Container::new(name.clone(), self.background.clone(), {
            let engine = self.engine.clone();
            move || async move {
                engine.containers().remove(&name);
                drop(resource);
            }
        });
        let (reader, writer) = tokio::io::split(near);
        open_sandbox(container, reader, writer, present).await
    }

    async fn reap(&self, alive: &[WorkerId]) -> Result<usize, SandboxError> {
        let mut containers = self.engine.containers();
        let before = containers.len();
        containers.retain(|_, container| {
            let owner = &container.owner;
            owner.namespace != self.owner.namespace
                || owner.worker == self.owner.worker
                || alive.contains(&owner.worker)
        });
        Ok(before - containers.len())
    }

    async fn oom_of(&self, container: &str) -> bool {
        let containers = self.engine.containers();
        let found = containers.get(container);
        found.is_some_and(|container| container.is_out_of_memory)
    }

    fn facts(&self) -> &EngineFacts {
        &self.facts
    }
}

#[async_trait]
impl ImageStore for MemoryProvider {
    async fn look_up(&self, name: &ImageName) -> Result<Image, SandboxError> {
        let image = image();
        if image.name == *name {
            return Ok(image);
        }
        Err(SandboxError::UnknownImage {
            name: name.clone(),
            reference: format!("memory/{name}"),
        })
    }

    async fn list(&self) -> Result<Vec<StoredImage>, SandboxError> {
        let image = image();
        Ok(vec![StoredImage {
            name: image.name,
            reference: image.reference,
            digest: image.digest,
            contract: (*image.contract).clone(),
            size: None,
        }])
    }
}
