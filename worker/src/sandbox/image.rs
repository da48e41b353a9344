//! Images that sandboxes are started from, as a provider stores them.

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
    /// The reference of the image in its store.
    pub reference: String,
    /// The digest of this build.
    pub digest: Digest,
    /// The contract: languages, defaults and features that the image offers.
    pub contract: Arc<ImageContract>,
}

/// The content address of an image: the id of its build, such as `sha256:…`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(String);

impl Digest {
    /// Creates a digest from the id that a provider gives to a build.
    #[must_use]
    pub fn new(id: String) -> Self {
        Self(id)
    }

    /// The digest as the provider writes it.
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

/// An image with a contract, under one of the names that a job may use for it.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredImage {
    /// The name: the contract's own if the provider resolves that to this image, else the
    /// reference.
    pub name: ImageName,
    /// The reference of the image in its store.
    pub reference: String,
    /// The digest of this build.
    pub digest: Digest,
    /// The contract.
    pub contract: ImageContract,
    /// Its size, including layers shared with other images; `None` if the provider does not know.
    pub size: Option<ByteCount>,
}

/// Returns whether a name is short, so that it has a place in the template of references. Any other
/// name is already a reference.
pub(crate) fn is_short(name: &ImageName) -> bool {
    !name.as_str().contains(['/', ':', '@'])
}

/// Returns the reference for a name: a short name is inserted into the template; any other name is
/// already a reference.
pub(crate) fn reference(template: &str, name: &ImageName) -> String {
    if is_short(name) {
        template.replace("{name}", name.as_str())
    } else {
        name.as_str().to_owned()
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
