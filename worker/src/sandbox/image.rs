//! Images: from the short name in a job to what the engine has.

use std::fmt;
use std::sync::Arc;

use sandhog_common::id::ImageName;
use sandhog_common::image::ImageContract;

use super::{Engine, SandboxError};

/// An image that sandboxes can be started from. Cheap to clone.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// The short name jobs use.
    pub name: ImageName,
    /// What it stands for with the engine.
    pub reference: String,
    /// Which build of it this is.
    pub digest: Digest,
    /// What it offers.
    pub contract: Arc<ImageContract>,
}

/// The content address of an image: the engine's image id, `sha256:…`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(String);

impl Digest {
    /// The digest as the engine writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Engine {
    /// Finds the image a job names. What was found less than two seconds ago is not asked for again, so a rebuilt
    /// image is noticed within that time.
    ///
    /// # Errors
    /// [`SandboxError::UnknownImage`], [`SandboxError::NoContract`] and [`SandboxError::BadContract`] are the
    /// submitter's fault, anything else is the engine's.
    pub async fn resolve(&self, name: &ImageName) -> Result<Image, SandboxError> {
        let _ = name;
        unimplemented!()
    }
}
