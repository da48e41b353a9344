//! Building images.

use std::time::Duration;

use sandhog_common::config::SandboxSettings;
use sandhog_common::id::ImageName;

use super::ImageError;
use crate::sandbox::{Digest, Engine};

/// How to build.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BuildOptions {
    /// Build even what is current.
    pub force: bool,
}

/// What happens while images are built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildEvent {
    /// The base image is missing and is being made from packages.
    Base {
        /// Its reference.
        reference: String,
        /// Why and how, in one sentence for people.
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
    /// A line a step printed.
    Line {
        /// The image, or none for the base.
        name: Option<ImageName>,
        /// The line.
        line: String,
    },
    /// The image is built, or was already current.
    Finished(Built),
}

/// An image that is there now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// The image.
    pub name: ImageName,
    /// Its reference.
    pub reference: String,
    /// Which build it is.
    pub digest: Digest,
    /// Whether it was current already and nothing was done.
    pub cached: bool,
    /// How long it took.
    pub took: Duration,
}

/// Builds the named images, or all of them when none is named. What is current is left as it is.
///
/// # Errors
/// At the first image that cannot be built.
pub async fn build(
    engine: &Engine,
    settings: &SandboxSettings,
    names: &[ImageName],
    options: &BuildOptions,
    progress: &mut (dyn FnMut(BuildEvent) + Send),
) -> Result<Vec<Built>, ImageError> {
    let _ = (engine, settings, names, options, progress);
    unimplemented!()
}
