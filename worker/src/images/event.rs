//! Progress of a build and its result.

use std::time::Duration;

use sandhog_core::id::ImageName;

use crate::sandbox::Digest;

/// Progress of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildEvent {
    /// The base image is missing and is being made from packages.
    Base {
        /// Its reference.
        reference: String,
        /// The reason and the method, in one sentence for people.
        note: String,
    },
    /// One image is being built.
    Started {
        /// The image.
        name: ImageName,
    },
    /// A step of the Dockerfile began.
    Step {
        /// The image.
        name: ImageName,
        /// The step, as the engine prints it.
        step: String,
    },
    /// A step printed a line.
    Line {
        /// The image; `None` for the base.
        name: Option<ImageName>,
        /// The line.
        line: String,
    },
    /// The image is built, or was already up to date.
    Finished(BuiltImage),
}

/// An image that exists now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltImage {
    /// The image.
    pub name: ImageName,
    /// Its reference.
    pub reference: String,
    /// The digest of this build.
    pub digest: Digest,
    /// True if it was already up to date and nothing was done.
    pub cached: bool,
    /// The time that the build took.
    pub took: Duration,
    /// The reason why its jobs cannot run on this worker although it is built.
    pub warning: Option<String>,
}
