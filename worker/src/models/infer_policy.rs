//! The operator's rules for inference requests of programs.

use std::collections::BTreeSet;

use sandhog_config::WorkerSettings;
use sandhog_core::id::ImageName;

/// The inference requests that the operator allows programs to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InferPolicy {
    /// The allowed images; empty means all.
    images: BTreeSet<ImageName>,
    /// Maximum number of requests of one program.
    pub(super) max_calls: u64,
    /// Maximum number of open requests of one program.
    pub(super) max_open: u32,
}

impl InferPolicy {
    /// Creates the policy from the settings.
    pub(super) fn new(settings: &WorkerSettings) -> Self {
        Self {
            images: settings.program_models.iter().cloned().collect(),
            max_calls: settings.program_calls.into(),
            max_open: settings.program_calls_at_once.max(1),
        }
    }

    /// Returns whether programs may call this image.
    pub(super) fn allows(&self, image: &ImageName) -> bool {
        self.images.is_empty() || self.images.contains(image)
    }
}
