//! The keepers in a directory as a provider of sandboxes and as a store of images.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sandhog_config::SandboxSettings;
use sandhog_core::id::{ImageName, WorkerId};
use tokio::time::Instant;

use super::connection::KeeperConnection;
use super::directory::{KeeperDirectory, image_of};
use super::facts::keeper_facts;
use super::open_keeper_sandboxes::OpenKeeperSandboxes;
use super::survey::{KeeperReport, survey};
use crate::sandbox::background_tasks::BackgroundTasks;
use crate::sandbox::{
    ContainerResource, EngineFacts, Image, ImageStore, ProviderParts, Sandbox, SandboxError,
    SandboxProvider, Shape, StoredImage,
};

/// Timeout for the first keeper to answer, when a worker and its keepers start together.
const FIRST_KEEPER_TIMEOUT: Duration = Duration::from_secs(10);

/// Time between two attempts to find the first keeper.
const FIRST_KEEPER_POLL: Duration = Duration::from_millis(100);

/// The keepers in a directory of sockets.
#[derive(Debug)]
pub struct Keepers {
    directory: KeeperDirectory,
    facts: EngineFacts,
    sandboxes: OpenKeeperSandboxes,
    background: BackgroundTasks,
}

impl Keepers {
    /// Connects to the keepers in `directory`. Waits up to ten seconds for the first one.
    ///
    /// # Errors
    /// [`SandboxError::NoKeeper`] if no keeper answers.
    pub async fn connect(
        directory: PathBuf,
        settings: &SandboxSettings,
    ) -> Result<Self, SandboxError> {
        let directory = KeeperDirectory::new(directory);
        let until = Instant::now() + FIRST_KEEPER_TIMEOUT;
        let found = loop {
            let source = match directory.connect_all().await {
                Ok(found) if !found.is_empty() => break found,
                Ok(_none) => io::Error::new(
                    io::ErrorKind::NotFound,
                    format!(
                        "no keeper answers on any `*.sock` in {}",
                        directory.path().display()
                    ),
                ),
                Err(source) => source,
            };
            if Instant::now() >= until {
                return Err(SandboxError::NoKeeper {
                    endpoint: settings.engine.clone(),
                    source: source.into(),
                });
            }
            tokio::time::sleep(FIRST_KEEPER_POLL).await;
        };
        let facts = keeper_facts(
            found.iter().map(KeeperConnection::hello),
            &settings.runtime,
            &directory.path().display().to_string(),
        );
        Ok(Self {
            directory,
            facts,
            sandboxes: OpenKeeperSandboxes::default(),
            background: BackgroundTasks::default(),
        })
    }

    /// The facts about the keepers and their machine, as read when connecting.
    #[must_use]
    pub fn facts(&self) -> &EngineFacts {
        &self.facts
    }

    /// Returns the parts of this provider.
    #[must_use]
    pub fn parts(self) -> ProviderParts {
        let background = self.background.clone();
        let keepers = Arc::new(self);
        ProviderParts {
            sandboxes: Arc::<Self>::clone(&keepers),
            images: keepers,
            builder: None,
            background,
        }
    }
}

#[async_trait]
impl SandboxProvider for Keepers {
    async fn start(
        &self,
        image: &Image,
        shape: &Shape,
        resource: Option<ContainerResource>,
    ) -> Result<Sandbox, SandboxError> {
        let mut keepers = self.directory.keepers_of(&image.name).await?;
        let same_build = |keeper: &KeeperConnection| keeper.hello().build == image.digest.as_str();
        // If the image was rebuilt, the first keeper has the newest build.
        let at = keepers.iter().position(same_build).unwrap_or_default();
        if at >= keepers.len() {
            return Err(self.directory.unknown(&image.name));
        }
        let keeper = keepers.swap_remove(at);
        let image = if same_build(&keeper) {
            image.clone()
        } else {
            image_of(&keeper, &image.name)?
        };
        self.sandboxes
            .open(keeper, image, shape, &self.background, resource)
            .await
    }

    /// Nothing is left to remove: a keeper ends each sandbox whose connection is closed, and the
    /// kernel closes the connections of a dead worker.
    async fn reap(&self, _alive: &[WorkerId]) -> Result<usize, SandboxError> {
        Ok(0)
    }

    async fn oom_of(&self, container: &str) -> bool {
        self.sandboxes.oom_of(container).await.unwrap_or_default()
    }

    fn facts(&self) -> &EngineFacts {
        &self.facts
    }

    async fn keepers(&self) -> Vec<KeeperReport> {
        // The caller learns from the sandboxes that the directory cannot be read.
        survey(self.directory.path()).await.unwrap_or_default()
    }
}

#[async_trait]
impl ImageStore for Keepers {
    async fn look_up(&self, name: &ImageName) -> Result<Image, SandboxError> {
        let keepers = self.directory.keepers_of(name).await?;
        match keepers.first() {
            Some(keeper) => image_of(keeper, name),
            None => Err(self.directory.unknown(name)),
        }
    }

    async fn list(&self) -> Result<Vec<StoredImage>, SandboxError> {
        let found = self.directory.connect_all().await;
        let found = found.map_err(|source| self.directory.unreadable(source))?;
        let mut names: Vec<ImageName> = found
            .iter()
            .filter_map(|keeper| keeper.hello().image.parse().ok())
            .collect();
        drop(found);
        names.sort();
        names.dedup();
        let mut listed = Vec::with_capacity(names.len());
        for name in names {
            // A keeper that has stopped since, or whose contract cannot be used, is left out.
            if let Ok(image) = self.look_up(&name).await {
                listed.push(StoredImage {
                    name,
                    reference: image.reference,
                    digest: image.digest,
                    contract: (*image.contract).clone(),
                    size: None,
                });
            }
        }
        Ok(listed)
    }
}
