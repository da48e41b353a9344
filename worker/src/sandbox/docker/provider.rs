//! Docker as a provider of sandboxes and as a store of images.

use sandhog_core::id::ImageName;

use super::Engine;
use crate::sandbox::{
    ContainerResource, EngineFacts, Image, ImageStore, Sandbox, SandboxError, SandboxProvider,
    Shape, StoredImage,
};

impl SandboxProvider for Engine {
    async fn start(
        &self,
        image: &Image,
        shape: &Shape,
        resource: Option<ContainerResource>,
    ) -> Result<Sandbox, SandboxError> {
        self.start_with_resource(image, shape, resource).await
    }

    fn shape(&self, image: &Image) -> Shape {
        Self::shape(self, image)
    }

    async fn reap(&self) -> Result<usize, SandboxError> {
        self.reap_own().await
    }

    fn facts(&self) -> &EngineFacts {
        Self::facts(self)
    }

    async fn oom_of(&self, container: &str) -> bool {
        Self::oom_of(self, container).await
    }
}

impl ImageStore for Engine {
    async fn resolve(&self, name: &ImageName) -> Result<Image, SandboxError> {
        Self::resolve(self, name).await
    }

    async fn list(&self, label: &str) -> Result<Vec<StoredImage>, SandboxError> {
        self.stored_with_label(label).await
    }
}
