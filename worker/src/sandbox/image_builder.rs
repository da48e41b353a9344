//! The interface between the worker and a provider that can build images from Dockerfiles.

use std::collections::HashMap;
use std::fmt::Debug;
use std::path::Path;

use async_trait::async_trait;

use super::{Digest, SandboxError};

/// A provider that can build images and keeps them in its store.
#[async_trait]
pub trait ImageBuilder: Debug + Send + Sync {
    /// Returns the image with that reference or digest, if the store has it.
    ///
    /// # Errors
    /// If the store does not answer.
    async fn labelled(&self, reference: &str) -> Result<Option<LabelledImage>, SandboxError>;

    /// Creates an image of one layer from a tar archive of a file tree. `changes` are Dockerfile
    /// instructions.
    ///
    /// # Errors
    /// If the archive cannot be read or the store does not accept it.
    async fn import(
        &self,
        archive: &Path,
        reference: &str,
        changes: Vec<String>,
    ) -> Result<(), SandboxError>;

    /// Runs a Dockerfile with the host's network. Passes each line that the build prints to `line`.
    ///
    /// # Errors
    /// If the builder does not answer. A step that fails is no error but
    /// [`BuildResult::Failed`].
    async fn run_recipe(
        &self,
        recipe: BuildRecipe,
        line: LineReceiver<'_>,
    ) -> Result<BuildResult, SandboxError>;

    /// Removes a name from an image. The store deletes the image when its last name is removed.
    ///
    /// # Errors
    /// If the store rejects the request, for example because a container uses the image. A missing
    /// image is a success.
    async fn remove_image(&self, reference: &str) -> Result<(), SandboxError>;
}

/// Receiver of the lines that a build prints.
pub type LineReceiver<'a> = &'a mut (dyn FnMut(&str) + Send);

/// A Dockerfile to run, with the files it may copy.
#[derive(Debug)]
pub struct BuildRecipe {
    /// The name of the recipe in error messages.
    pub subject: String,
    /// A tar archive with a file `Dockerfile` at its top.
    pub context: Vec<u8>,
    /// The reference given to the result; without it the result has no name.
    pub reference: Option<String>,
    /// Labels of the result.
    pub labels: HashMap<String, String>,
    /// True if the builder must not use cached steps.
    pub no_cache: bool,
}

/// Result of a build that ended without a fault of the builder.
#[derive(Debug)]
pub enum BuildResult {
    /// The build produced this image.
    Built(Digest),
    /// A step failed with this message of the builder.
    Failed(String),
}

/// An image in the store of a builder, with the labels of its build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelledImage {
    /// The digest of this build.
    pub digest: Digest,
    /// The references that name it.
    pub references: Vec<String>,
    /// Its labels.
    pub labels: HashMap<String, String>,
}
