//! Docker as a provider whose sandboxes are made by keepers, one for each build of an image.
//!
//! A keeper is started for the first sandbox of its build. It lives as long as one of its sandboxes
//! does, and for a while after that. A keeper that has died is replaced with the next sandbox. A
//! sandbox that a keeper cannot make has a container of its own.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use sandhog_config::{Environment, PoolSettings, SandboxSettings, socket_dirs};
use sandhog_core::error_chain::error_chain;
use sandhog_core::id::{ImageName, RuntimeName, WorkerId};
use sandhog_core::units::{ByteCount, CpuMillis};
use sandhog_protocol::frames::CgroupSupport;
use sandhog_protocol::keeper::Hello;

use super::Engine;
use super::bind_mount::require_shared;
use super::keeper_container::{KeeperCaps, KeeperContainer};
use super::socket_dir::SocketDir;
use super::start::is_missing;
use crate::sandbox::keepers::{KeeperConnection, KeeperReport, OpenKeeperSandboxes, report};
use crate::sandbox::shape_policy::ShapePolicy;
use crate::sandbox::{
    ContainerResource, Digest, EngineFacts, Image, ProviderParts, Sandbox, SandboxError,
    SandboxProvider, Shape, StoredImage, is_short,
};

/// Runtimes under which a container can hold sandboxes. Others, such as gVisor and Kata, have a
/// kernel of their own.
const KEEPER_RUNTIMES: [&str; 4] = ["runc", "crun", "youki", "io.containerd.runc.v2"];

/// The image that most jobs use, because it is the default of the command.
const COMMON_IMAGE: &str = "python";

/// Time between two searches for keepers that are not used any more.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(10);

/// Time for which a keeper without sandboxes is kept.
const KEEPER_IDLE: Duration = Duration::from_secs(60);

/// Number of keepers that are tried for one sandbox. A keeper that has died is found out only by
/// the attempt to connect to it.
const KEEPER_ATTEMPTS: u32 = 2;

/// Docker, with keepers that make the sandboxes.
#[derive(Debug)]
pub struct KeeperContainers {
    engine: Engine,
    facts: EngineFacts,
    caps: KeeperCaps,
    /// The directory with one directory for each keeper's socket.
    dir: SocketDir,
    made: AtomicU64,
    slots: Mutex<HashMap<KeeperKind, Arc<KeeperSlot>>>,
    sandboxes: OpenKeeperSandboxes,
}

/// Keepers that can make the same sandboxes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct KeeperKind {
    digest: Digest,
    runtime: RuntimeName,
}

/// The place of one keeper. Its lock is held while the keeper is started.
#[derive(Debug)]
struct KeeperSlot {
    image: ImageName,
    keeper: tokio::sync::Mutex<Option<Arc<KeeperContainer>>>,
    last_used: Mutex<Instant>,
}

impl KeeperContainers {
    /// Creates the provider, and removes the directories of dead workers.
    ///
    /// # Errors
    /// [`SandboxError::SocketDirectory`] if no directory for the sockets can be made, and
    /// [`SandboxError::SocketDirectoryNotShared`] if the engine does not have that directory.
    pub async fn connect(engine: Engine, pool: &PoolSettings) -> Result<Self, SandboxError> {
        let parents = socket_dirs(engine.settings(), &Environment::current());
        let dir = SocketDir::new(&parents)?;
        dir.remove_abandoned();
        require_shared(&engine, dir.path()).await?;
        Ok(Self {
            facts: EngineFacts {
                has_keepers: true,
                ..engine.facts().clone()
            },
            caps: keeper_caps(pool, engine.facts()),
            engine,
            dir,
            made: AtomicU64::new(0),
            slots: Mutex::default(),
            sandboxes: OpenKeeperSandboxes::default(),
        })
    }

    /// Creates the provider if keepers can make the sandboxes of these settings. Starts the keeper
    /// of one image, if the engine has any, to find that out. It is kept for the first jobs.
    ///
    /// # Errors
    /// The reason for which keepers cannot be used.
    pub async fn connect_tried(
        engine: Engine,
        settings: &SandboxSettings,
        pool: &PoolSettings,
    ) -> Result<Self, String> {
        if !engine.facts().is_local {
            return Err(format!(
                "the engine at {} may be on another machine",
                settings.engine
            ));
        }
        if !KEEPER_RUNTIMES.contains(&settings.runtime.as_str()) {
            return Err(format!(
                "sandbox.runtime is {}, and keepers need one of {}",
                settings.runtime,
                KEEPER_RUNTIMES.join(", ")
            ));
        }
        let failed = |error: SandboxError| error_chain(&error);
        let keepers = Self::connect(engine, pool).await.map_err(failed)?;
        let images = keepers.engine.stored_images().await.map_err(failed)?;
        if let Some(image) = trial_image(images) {
            let shape = ShapePolicy::new(settings.clone()).shape(&image);
            if let Err(reason) = keepers.try_keeper(&image, &shape).await {
                keepers.close().await;
                keepers.engine.background().wait().await;
                return Err(reason);
            }
        }
        Ok(keepers)
    }

    /// Starts the keeper of an image and checks what it can do.
    async fn try_keeper(&self, image: &Image, shape: &Shape) -> Result<(), String> {
        let started = self.slot(image, shape).keeper(self, image, shape).await;
        let keeper = started.map_err(|error| error_chain(&error))?;
        let connected = KeeperConnection::connect(keeper.socket()).await;
        let connection = connected.map_err(|error| error_chain(&error))?;
        let Hello {
            cgroup, missing, ..
        } = connection.hello();
        if *cgroup == CgroupSupport::None {
            return Err(format!(
                "a keeper cannot cap its sandboxes here: {}",
                missing.join("; ")
            ));
        }
        Ok(())
    }

    /// Returns the parts of this provider.
    #[must_use]
    pub fn parts(self) -> ProviderParts {
        let engine = self.engine.clone();
        let keepers = Arc::new(self);
        tokio::spawn(expire_keepers(Arc::downgrade(&keepers)));
        ProviderParts {
            sandboxes: keepers,
            ..engine.parts()
        }
    }

    /// Makes a sandbox in the keeper of this build.
    async fn open(
        &self,
        image: &Image,
        shape: &Shape,
        resource: Option<ContainerResource>,
    ) -> Result<Sandbox, SandboxError> {
        let slot = self.slot(image, shape);
        let mut attempt = 1;
        loop {
            let keeper = slot.keeper(self, image, shape).await?;
            let opened = async {
                let connection = KeeperConnection::connect(keeper.socket()).await?;
                // The keeper must live as long as the sandbox.
                let held: ContainerResource = Arc::new((Arc::clone(&keeper), resource.clone()));
                let (image, background) = (image.clone(), self.engine.background());
                self.sandboxes
                    .open(connection, image, shape, background, Some(held))
                    .await
            };
            match opened.await {
                // It has died or is being stopped.
                Err(error) if error.is_keeper_away() && attempt < KEEPER_ATTEMPTS => {
                    tracing::warn!(
                        image = %image.name,
                        error = &error as &dyn std::error::Error,
                        "keeper replaced"
                    );
                    slot.forget(&keeper).await;
                    attempt += 1;
                }
                ended => return ended,
            }
        }
    }

    /// Returns the place of the keeper of this build. Forgets the keepers of other builds of the
    /// image, which end with their last sandbox.
    fn slot(&self, image: &Image, shape: &Shape) -> Arc<KeeperSlot> {
        let kind = KeeperKind {
            digest: image.digest.clone(),
            runtime: shape.runtime.clone(),
        };
        let mut slots = self.slots();
        slots.retain(|other, slot| slot.image != image.name || other.digest == kind.digest);
        let slot = slots.entry(kind).or_insert_with(|| {
            Arc::new(KeeperSlot {
                image: image.name.clone(),
                keeper: tokio::sync::Mutex::default(),
                last_used: Mutex::new(Instant::now()),
            })
        });
        slot.use_now();
        Arc::clone(slot)
    }

    /// Forgets the keepers that have no sandbox and were not used for a while.
    fn expire(&self) {
        self.slots().retain(|_, slot| !slot.is_expired());
    }

    /// Returns a new path for the socket of a keeper.
    fn next_folder(&self) -> PathBuf {
        let n = self.made.fetch_add(1, Ordering::Relaxed);
        self.dir.path().join(n.to_string())
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<KeeperKind, Arc<KeeperSlot>>> {
        self.slots
            .lock()
            .expect("no code panics while it holds this lock")
    }
}

impl KeeperSlot {
    /// Returns the keeper, and starts one if there is none.
    async fn keeper(
        &self,
        containers: &KeeperContainers,
        image: &Image,
        shape: &Shape,
    ) -> Result<Arc<KeeperContainer>, SandboxError> {
        let mut keeper = self.keeper.lock().await;
        if let Some(running) = &*keeper {
            return Ok(Arc::clone(running));
        }
        let (engine, caps) = (containers.engine.clone(), containers.caps);
        let (image, shape) = (image.clone(), shape.clone());
        let folder = containers.next_folder();
        let subject = image.name.to_string();
        // In a separate task: dropping a create request half-way would leave a container that no
        // worker tracks.
        let starting = tokio::spawn(async move {
            KeeperContainer::start(&engine, &image, &shape, caps, &folder).await
        });
        let started = starting
            .await
            .map_err(|source| SandboxError::EngineRequest {
                step: "start the keeper of image",
                subject,
                source: source.into(),
            })??;
        let started = Arc::new(started);
        *keeper = Some(Arc::clone(&started));
        Ok(started)
    }

    /// Forgets the keeper, unless another one has its place already.
    async fn forget(&self, dead: &Arc<KeeperContainer>) {
        let mut keeper = self.keeper.lock().await;
        if keeper.as_ref().is_some_and(|now| Arc::ptr_eq(now, dead)) {
            *keeper = None;
        }
    }

    fn use_now(&self) {
        *self.last_used() = Instant::now();
    }

    fn is_expired(&self) -> bool {
        let Ok(keeper) = self.keeper.try_lock() else {
            return false;
        };
        let has_sandboxes = keeper
            .as_ref()
            .is_some_and(|keeper| Arc::strong_count(keeper) > 1);
        !has_sandboxes && self.last_used().elapsed() > KEEPER_IDLE
    }

    fn last_used(&self) -> MutexGuard<'_, Instant> {
        self.last_used
            .lock()
            .expect("no code panics while it holds this lock")
    }
}

#[async_trait]
impl SandboxProvider for KeeperContainers {
    async fn start(
        &self,
        image: &Image,
        shape: &Shape,
        resource: Option<ContainerResource>,
    ) -> Result<Sandbox, SandboxError> {
        if !has_keeper(shape) {
            return self
                .engine
                .start_with_resource(image, shape, resource)
                .await;
        }
        match self.open(image, shape, resource.clone()).await {
            // The image was rebuilt since it was resolved, and the old build was removed.
            Err(error) if is_missing(&error) => {
                let rebuilt = self.engine.look_up(&image.name).await?;
                self.open(&rebuilt, shape, resource).await
            }
            ended => ended,
        }
    }

    async fn reap(&self, alive: &[WorkerId]) -> Result<usize, SandboxError> {
        self.dir.remove_abandoned();
        self.engine.reap(alive).await
    }

    async fn oom_of(&self, container: &str) -> bool {
        match self.sandboxes.oom_of(container).await {
            Some(oom) => oom,
            None => self.engine.oom_of(container).await,
        }
    }

    fn facts(&self) -> &EngineFacts {
        &self.facts
    }

    async fn keepers(&self) -> Vec<KeeperReport> {
        let slots: Vec<Arc<KeeperSlot>> = self.slots().values().cloned().collect();
        let mut reports = Vec::with_capacity(slots.len());
        for slot in slots {
            let keeper = slot.keeper.lock().await.clone();
            if let Some(keeper) = keeper {
                reports.push(report(keeper.name().to_owned(), keeper.socket()).await);
            }
        }
        reports.sort_by(|one, other| one.name.cmp(&other.name));
        reports
    }

    async fn close(&self) {
        self.slots().clear();
    }
}

/// Returns whether a keeper makes the sandboxes of this shape. A container of its own has the caps
/// of its job, or its GPUs, or a kernel of its own.
fn has_keeper(shape: &Shape) -> bool {
    let is_native = KEEPER_RUNTIMES.contains(&shape.runtime.as_str());
    is_native && shape.gpus.is_empty()
}

/// Returns the image whose keeper is tried: that of most jobs, or else the first one. `None`
/// without images.
fn trial_image(images: Vec<StoredImage>) -> Option<Image> {
    let mut images: Vec<StoredImage> = (images.into_iter())
        .filter(|image| is_short(&image.name))
        .collect();
    images.sort_by_key(|image| (image.name.as_str() != COMMON_IMAGE, image.name.clone()));
    let StoredImage {
        name,
        reference,
        digest,
        contract,
        ..
    } = images.into_iter().next()?;
    Some(Image {
        name,
        reference,
        digest,
        contract: Arc::new(contract),
    })
}

/// Returns the caps of each keeper's container: those of all jobs and sandboxes of the pool.
fn keeper_caps(pool: &PoolSettings, facts: &EngineFacts) -> KeeperCaps {
    let share = u64::from(pool.workers).max(1);
    let memory = match pool.memory {
        ByteCount(0) => ByteCount(facts.memory.0 / 10 * 9 / share),
        set => set,
    };
    let cpu_millis = match pool.cpu_millis {
        CpuMillis(0) => CpuMillis(1000 * u64::from(facts.cpus) / share),
        set => set,
    };
    KeeperCaps { memory, cpu_millis }
}

/// Forgets unused keepers until the provider is dropped.
async fn expire_keepers(keepers: Weak<KeeperContainers>) {
    loop {
        tokio::time::sleep(EXPIRY_INTERVAL).await;
        match keepers.upgrade() {
            Some(keepers) => keepers.expire(),
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_native_runtimes_without_gpus_have_a_keeper() {
        let shape = |runtime: &str, gpus: &[&str]| Shape {
            runtime: runtime.parse().unwrap(),
            memory: ByteCount::mib(256),
            cpu_millis: CpuMillis(1000),
            pids: 64,
            caps_the_job: false,
            gpus: gpus.iter().map(|&gpu| gpu.to_owned()).collect(),
        };
        for (case, shape, want) in [
            ("runc", shape("runc", &[]), true),
            ("gVisor", shape("runsc", &[]), false),
            ("kata", shape("kata", &[]), false),
            ("a GPU", shape("runc", &["GPU-a"]), false),
        ] {
            assert_eq!(has_keeper(&shape), want, "case {case}");
        }
    }
}
