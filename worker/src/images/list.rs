//! Listing of images.

use std::collections::BTreeMap;

use sandhog_config::SandboxSettings;
use sandhog_core::id::ImageName;
use sandhog_core::image::ImageContract;
use sandhog_core::units::ByteCount;
use serde::Serialize;

use super::plan::{BUILD_LABEL, BuildPlan};
use super::{ImageError, ImageSources};
use crate::sandbox::{Sandboxes, StoredImage};

/// One image that the provider has or that could be built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImageSummary {
    /// The short name.
    pub name: ImageName,
    /// A one-line description.
    pub summary: String,
    /// Its reference in its store.
    pub reference: String,
    /// The digest of this build; `None` if it is not built.
    pub digest: Option<String>,
    /// Its size in its store; `None` if it is not built or the provider does not know.
    pub size: Option<ByteCount>,
    /// The languages that it runs, the default one first.
    pub languages: Vec<String>,
    /// True if it equals the build that its folder would produce now; `None` if there is no folder
    /// for it here, or the provider builds no images.
    pub current: Option<bool>,
}

/// Returns every image with a contract that the provider has, and every folder that is not built
/// yet, sorted by name.
///
/// # Errors
/// If the provider does not answer or a folder cannot be read.
pub async fn list(
    sandboxes: &Sandboxes,
    settings: &SandboxSettings,
) -> Result<Vec<ImageSummary>, ImageError> {
    let mut found = BTreeMap::new();
    for stored in sandboxes.images().await? {
        let key = (stored.name.clone(), stored.reference.clone());
        found.insert(key, summary_of(&stored));
    }
    // Without a builder or sources nothing can be built, but the provider's images can still be
    // listed.
    let Ok(builder) = sandboxes.builder() else {
        return Ok(found.into_values().collect());
    };
    let sources = match ImageSources::find(settings) {
        Ok(sources) => sources,
        Err(ImageError::NoFolder { .. } | ImageError::NoRunner { .. }) => {
            return Ok(found.into_values().collect());
        }
        Err(error) => return Err(error),
    };
    for name in sources.names()? {
        let plan = BuildPlan::read(builder, &sources, settings, &name).await?;
        let wanted = plan.fingerprint(builder).await?;
        let is = builder
            .labelled(&plan.reference)
            .await?
            .and_then(|stored| stored.labels.get(BUILD_LABEL).cloned());
        let summary = found
            .entry((name, plan.reference.clone()))
            .or_insert_with(|| summary(&plan.contract, &plan.name, &plan.reference));
        summary.current = Some(wanted.is_some() && wanted == is);
    }
    Ok(found.into_values().collect())
}

fn summary_of(stored: &StoredImage) -> ImageSummary {
    ImageSummary {
        digest: Some(stored.digest.to_string()),
        size: stored.size,
        ..summary(&stored.contract, &stored.name, &stored.reference)
    }
}

fn summary(contract: &ImageContract, name: &ImageName, reference: &str) -> ImageSummary {
    let (first, others): (Vec<_>, Vec<_>) = (contract.languages.keys())
        .cloned()
        .partition(|language| *language == contract.language);
    ImageSummary {
        name: name.clone(),
        summary: contract.summary.clone(),
        reference: reference.to_owned(),
        digest: None,
        size: None,
        languages: first.into_iter().chain(others).collect(),
        current: None,
    }
}
