//! Checking that an image works: its own check program, in a real sandbox.

use std::time::Duration;

use sandhog_common::id::ImageName;
use sandhog_runner::protocol::{Features, Report};

use super::ImageError;
use crate::sandbox::{Engine, Image};

/// What a check found.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckReport {
    /// The image.
    pub image: Image,
    /// What its sandbox has to work with.
    pub features: Features,
    /// How long the container took to be ready.
    pub start: Duration,
    /// How long the check program took, as the worker saw it; none if the contract names none.
    pub run: Option<Duration>,
    /// How the check program ended; none if the contract names none.
    pub report: Option<Report>,
}

/// Starts a sandbox of the image and runs its contract's check program in it.
///
/// # Errors
/// When the image cannot be used, the sandbox does not start, or the check program does not succeed.
pub async fn check(engine: &Engine, name: &ImageName) -> Result<CheckReport, ImageError> {
    let _ = (engine, name);
    unimplemented!()
}
