//! Where images come from: the folder of folders, and the runner to bake in.

use std::path::PathBuf;

use sandhog_common::config::SandboxSettings;
use sandhog_common::id::ImageName;

use super::ImageError;

/// The files images are built from, found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSources {
    /// The folder that holds one folder for each image.
    pub dir: PathBuf,
    /// The runner's file.
    pub runner: PathBuf,
}

impl ImageSources {
    /// Finds both: what is set, else beside this program, else in the checkout this program was built in.
    ///
    /// # Errors
    /// When one of them is nowhere; the error says where it was looked for.
    pub fn find(settings: &SandboxSettings) -> Result<Self, ImageError> {
        let _ = settings;
        unimplemented!()
    }

    /// The images that have a folder, sorted.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn names(&self) -> Result<Vec<ImageName>, ImageError> {
        unimplemented!()
    }
}
