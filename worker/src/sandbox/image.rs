//! Images that sandboxes are started from, as a container engine stores them.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use sandhog_core::id::ImageName;
use sandhog_core::image::ImageContract;
use sandhog_core::units::ByteCount;

/// An image that sandboxes can be started from. Cheap to clone.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// The short name jobs use.
    pub name: ImageName,
    /// The reference of the image in the engine.
    pub reference: String,
    /// The digest of this build.
    pub digest: Digest,
    /// The contract: languages, defaults and features that the image offers.
    pub contract: Arc<ImageContract>,
}

/// The content address of an image: the engine's image id, `sha256:…`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(String);

impl Digest {
    pub(crate) fn new(id: String) -> Self {
        Self(id)
    }

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

/// An image in the engine's store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredImage {
    /// The digest of this build.
    pub digest: Digest,
    /// The references that name it.
    pub references: Vec<String>,
    /// Its labels.
    pub labels: HashMap<String, String>,
    /// Its size, including layers shared with other images.
    pub size: ByteCount,
}

/// Returns the reference for a name: a short name is inserted into the template; any other name is
/// already a reference.
pub(crate) fn reference(template: &str, name: &ImageName) -> String {
    if name.as_str().contains(['/', ':', '@']) {
        name.as_str().to_owned()
    } else {
        template.replace("{name}", name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_go_into_the_template() {
        let template = "registry:5000/{name}:v1";
        for (name, want) in [
            ("python", "registry:5000/python:v1"),
            ("mine/python", "mine/python"),
            ("python:3", "python:3"),
            ("sha256:abc", "sha256:abc"),
        ] {
            assert_eq!(reference(template, &name.parse().unwrap()), want);
        }
    }
}
