//! Handle to the sandboxes and images of one worker, independent of their provider.

use std::sync::Arc;

use sandhog_config::SandboxSettings;
use sandhog_core::id::{ImageName, RuntimeName, WorkerId};
use sandhog_core::limits::Limits;
use sandhog_core::outcome::Fault;
use tokio::task::JoinHandle;

use super::image_builder::ImageBuilder;
use super::image_cache::ImageCache;
use super::keepers::KeeperReport;
use super::provider::ProviderParts;
use super::shape_policy::ShapePolicy;
use super::{
    ContainerResource, EngineFacts, Image, Sandbox, SandboxError, SandboxSource, Shape, StoredImage,
};

/// The sandboxes and images of one worker. Cheap to clone.
///
/// A provider starts the sandboxes and finds the images. This handle adds the parts that are the
/// same for every provider: the choice of runtimes and shapes, and the cache of images.
#[derive(Debug, Clone)]
pub struct Sandboxes {
    shared: Arc<SharedSandboxes>,
}

/// The state that all handles of [`Sandboxes`] share.
#[derive(Debug)]
struct SharedSandboxes {
    provider: ProviderParts,
    /// The address of the provider, for error messages.
    endpoint: String,
    source: SandboxSource,
    shapes: ShapePolicy,
    cache: ImageCache,
}

impl Sandboxes {
    /// Creates the handle to the sandboxes of a connected provider that makes a container for each.
    #[must_use]
    pub fn new(provider: ProviderParts, settings: &SandboxSettings) -> Self {
        Self::of_source(
            provider,
            settings,
            SandboxSource::Containers { reason: None },
        )
    }

    /// Creates the handle to the sandboxes of a connected provider that makes them in this way.
    #[must_use]
    pub fn of_source(
        provider: ProviderParts,
        settings: &SandboxSettings,
        source: SandboxSource,
    ) -> Self {
        Self {
            shared: Arc::new(SharedSandboxes {
                provider,
                endpoint: settings.engine.clone(),
                source,
                shapes: ShapePolicy::new(settings.clone()),
                cache: ImageCache::default(),
            }),
        }
    }

    /// The facts about the provider and its machine, as read when connecting.
    #[must_use]
    pub fn facts(&self) -> &EngineFacts {
        self.shared.provider.sandboxes.facts()
    }

    /// The way in which the sandboxes are made.
    #[must_use]
    pub fn source(&self) -> &SandboxSource {
        &self.shared.source
    }

    /// Resolves the image that a job names. Results are cached for two seconds, so a rebuilt image
    /// is noticed within that time.
    ///
    /// # Errors
    /// [`SandboxError::UnknownImage`], [`SandboxError::NoContract`], [`SandboxError::BadContract`]
    /// and [`SandboxError::UnusableImage`] are the submitter's fault; all others are the service's.
    pub async fn resolve(&self, name: &ImageName) -> Result<Image, SandboxError> {
        let cache = &self.shared.cache;
        if let Some(image) = cache.fresh(name) {
            return Ok(image);
        }
        let found = self.shared.provider.images.look_up(name).await;
        match &found {
            Ok(image) => cache.insert(name, image),
            Err(_) => cache.remove(name),
        }
        found
    }

    /// Returns the image as it was last resolved, however long ago; `None` if it never was. Sends
    /// no request to the provider.
    pub(crate) fn last_resolved(&self, name: &ImageName) -> Option<Image> {
        self.shared.cache.last(name)
    }

    /// Returns every image that has a contract, once for each name that a job may use for it.
    ///
    /// # Errors
    /// If the provider does not answer.
    pub async fn images(&self) -> Result<Vec<StoredImage>, SandboxError> {
        self.shared.provider.images.list().await
    }

    /// Returns the images that serve a model and that jobs name by the name in their contract.
    ///
    /// # Errors
    /// If the provider does not answer.
    pub async fn inference_images(&self) -> Result<Vec<Image>, SandboxError> {
        let mut found = Vec::new();
        for StoredImage { name, contract, .. } in self.images().await? {
            if contract.serve.is_some() && contract.name == name {
                found.push(self.resolve(&name).await?);
            }
        }
        Ok(found)
    }

    /// Returns the builder of images.
    ///
    /// # Errors
    /// [`SandboxError::NoImageBuilder`] if the provider cannot build images.
    pub fn builder(&self) -> Result<&dyn ImageBuilder, SandboxError> {
        match &self.shared.provider.builder {
            Some(builder) => Ok(builder.as_ref()),
            None => Err(SandboxError::NoImageBuilder {
                endpoint: self.shared.endpoint.clone(),
            }),
        }
    }

    /// Returns the runtime for a job of this image: the runtime that the job asks for if that is
    /// allowed, else the image's, else the configured one.
    ///
    /// # Errors
    /// [`SandboxError::RuntimeRefused`] if neither the image nor a setting lets jobs choose it.
    pub fn runtime(
        &self,
        image: &Image,
        wish: Option<&RuntimeName>,
    ) -> Result<RuntimeName, SandboxError> {
        self.shared.shapes.runtime(image, wish)
    }

    /// Returns the shape of this image's containers where cells have caps of their own: the caps
    /// from the settings.
    #[must_use]
    pub fn shape(&self, image: &Image) -> Shape {
        self.shared.shapes.shape(image)
    }

    /// Returns the shape of a container for a job with these caps under this runtime, as far as is
    /// known. Until the first container of a runtime has started, its cells are assumed to have
    /// caps of their own; the caller must call this again after the start.
    #[must_use]
    pub fn shape_for(&self, runtime: &RuntimeName, limits: &Limits) -> Shape {
        self.shared.shapes.shape_for(runtime, limits)
    }

    /// Starts a container from `image` with the default shape, and waits until its runner can take
    /// a job.
    ///
    /// # Errors
    /// As [`Sandboxes::start_shaped`].
    ///
    /// # Cancel safety
    /// As [`Sandboxes::start_shaped`].
    pub async fn start(&self, image: &Image) -> Result<Sandbox, SandboxError> {
        self.start_shaped(image, &self.shape(image)).await
    }

    /// Starts a container from `image` with the given shape, and waits until its runner can take a
    /// job.
    ///
    /// # Errors
    /// If the provider rejects a request or the runner is not ready in time. In that case no
    /// container is left behind.
    ///
    /// # Cancel safety
    /// Dropping the future removes the container in the background.
    pub async fn start_shaped(
        &self,
        image: &Image,
        shape: &Shape,
    ) -> Result<Sandbox, SandboxError> {
        self.start_with_resource(image, shape, None).await
    }

    /// Same as [`Sandboxes::start_shaped`]; `resource` is released once the container is removed,
    /// however it ends.
    ///
    /// # Errors
    /// As [`Sandboxes::start_shaped`].
    ///
    /// # Cancel safety
    /// As [`Sandboxes::start_shaped`].
    pub async fn start_with_resource(
        &self,
        image: &Image,
        shape: &Shape,
        resource: Option<ContainerResource>,
    ) -> Result<Sandbox, SandboxError> {
        self.facts().require_runtime(&shape.runtime)?;
        let SharedSandboxes {
            provider,
            shapes,
            cache,
            ..
        } = &*self.shared;
        let started = provider.sandboxes.start(image, shape, resource).await;
        match &started {
            Ok(sandbox) => {
                shapes.record_features(&shape.runtime, sandbox.features());
                // The image was rebuilt since it was resolved.
                if sandbox.image().digest != image.digest {
                    cache.insert(&image.name, sandbox.image());
                }
            }
            Err(error) if error.fault() == Fault::Submitter => cache.remove(&image.name),
            Err(_) => {}
        }
        started
    }

    /// Removes the containers of this namespace whose worker is neither in `alive` nor this worker.
    /// Returns their number.
    ///
    /// # Errors
    /// If the provider does not answer.
    pub async fn reap(&self, alive: &[WorkerId]) -> Result<usize, SandboxError> {
        self.shared.provider.sandboxes.reap(alive).await
    }

    /// Returns whether the container of that name ended because it ran out of memory.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn oom_of(&self, container: &str) -> bool {
        self.shared.provider.sandboxes.oom_of(container).await
    }

    /// Returns the keepers that make the sandboxes now. Empty for a provider without keepers.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn keepers(&self) -> Vec<KeeperReport> {
        self.shared.provider.sandboxes.keepers().await
    }

    /// Runs `work` in the background. [`Sandboxes::wait_for_removals`] waits for its end. Returns
    /// `None` if the process is ending.
    pub(crate) fn spawn_background(
        &self,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> Option<JoinHandle<()>> {
        self.shared.provider.background.spawn(work)
    }

    /// Removes all that the provider keeps beside its sandboxes, and waits until every container
    /// that was dropped or destroyed so far is gone. No sandbox may be started after that.
    ///
    /// # Cancel safety
    /// Cancel safe: the removals go on in the background.
    pub async fn close(&self) {
        self.shared.provider.sandboxes.close().await;
        self.wait_for_removals().await;
    }

    /// Waits until every container that was dropped or destroyed so far is gone.
    ///
    /// # Cancel safety
    /// Cancel safe: the removals go on in the background.
    pub async fn wait_for_removals(&self) {
        self.shared.provider.background.wait().await;
    }
}
