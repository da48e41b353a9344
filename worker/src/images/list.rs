//! Listing images.

use sandhog_common::config::SandboxSettings;
use sandhog_common::id::ImageName;
use sandhog_common::units::ByteCount;
use serde::Serialize;

use super::ImageError;
use crate::sandbox::Engine;

/// One image that can be used, or could be built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImageSummary {
    /// The short name.
    pub name: ImageName,
    /// One line about it.
    pub summary: String,
    /// What the engine knows it by.
    pub reference: String,
    /// Which build it is; none if it is not built.
    pub digest: Option<String>,
    /// Its size with the engine; none if it is not built.
    pub size: Option<ByteCount>,
    /// The languages it runs, the default one first.
    pub languages: Vec<String>,
    /// Whether it is what its folder would build now; none if there is no folder for it here.
    pub current: Option<bool>,
}

/// Every image with a contract that the engine has, and every folder that is not built yet, sorted by name.
///
/// # Errors
/// When the engine does not answer or a folder cannot be read.
pub async fn list(
    engine: &Engine,
    settings: &SandboxSettings,
) -> Result<Vec<ImageSummary>, ImageError> {
    let _ = (engine, settings);
    unimplemented!()
}
