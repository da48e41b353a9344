//! Docker as a provider of sandboxes and as a store of images.

use std::sync::Arc;

use async_trait::async_trait;
use sandhog_core::id::{ImageName, WorkerId};

use super::Engine;
use crate::sandbox::{
    ContainerResource, EngineFacts, Image, ImageStore, ProviderParts, Sandbox, SandboxError,
    SandboxProvider, Shape, StoredImage,
};

impl Engine {
    /// Returns the parts of this provider.
    #[must_use]
    pub fn parts(&self) -> ProviderParts {
        let engine = Arc::new(self.clone());
        ProviderParts {
            sandboxes: Arc::<Self>::clone(&engine),
            images: Arc::<Self>::clone(&engine),
            builder: Some(engine),
            background: self.background().clone(),
        }
    }
}

#[async_trait]
impl SandboxProvider for Engine {
    async fn start(
        &self,
        image: &Image,
        shape: &Shape,
        resource: Option<ContainerResource>,
    ) -> Result<Sandbox, SandboxError> {
        self.start_with_resource(image, shape, resource).await
    }

    async fn reap(&self, alive: &[WorkerId]) -> Result<usize, SandboxError> {
        Self::reap(self, alive).await
    }

    async fn oom_of(&self, container: &str) -> bool {
        Self::oom_of(self, container).await
    }

    fn facts(&self) -> &EngineFacts {
        Self::facts(self)
    }
}

#[async_trait]
impl ImageStore for Engine {
    async fn look_up(&self, name: &ImageName) -> Result<Image, SandboxError> {
        Self::look_up(self, name).await
    }

    async fn list(&self) -> Result<Vec<StoredImage>, SandboxError> {
        self.stored_images().await
    }
}
