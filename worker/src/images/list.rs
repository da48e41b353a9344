//! Listing of images.

use std::collections::BTreeMap;

use sandhog_config::SandboxSettings;
use sandhog_core::id::ImageName;
use sandhog_core::image::{CONTRACT_LABEL, ImageContract};
use sandhog_core::units::ByteCount;
use serde::Serialize;

use super::plan::{BUILD_LABEL, BuildPlan};
use super::{ImageError, ImageSources};
use crate::sandbox::{Engine, StoredImage, reference};

/// One image that the engine has or that could be built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImageSummary {
    /// The short name.
    pub name: ImageName,
    /// A one-line description.
    pub summary: String,
    /// Its reference in the engine.
    pub reference: String,
    /// The digest of this build; `None` if it is not built.
    pub digest: Option<String>,
    /// Its size in the engine; `None` if it is not built.
    pub size: Option<ByteCount>,
    /// The languages that it runs, the default one first.
    pub languages: Vec<String>,
    /// True if it equals the build that its folder would produce now; `None` if there is no folder
    /// for it here.
    pub current: Option<bool>,
}

/// Returns every image with a contract that the engine has, and every folder that is not built yet,
/// sorted by name.
///
/// # Errors
/// If the engine does not answer or a folder cannot be read.
pub async fn list(
    engine: &Engine,
    settings: &SandboxSettings,
) -> Result<Vec<ImageSummary>, ImageError> {
    let mut found = BTreeMap::new();
    for stored in engine.stored_with_label(CONTRACT_LABEL).await? {
        for reference in &stored.references {
            if let Some(summary) = summary_of(&stored, reference, settings) {
                found.insert((summary.name.clone(), reference.clone()), summary);
            }
        }
    }
    // Without sources nothing can be built, but the engine's images can still be listed.
    let sources = match ImageSources::find(settings) {
        Ok(sources) => sources,
        Err(ImageError::NoFolder { .. } | ImageError::NoRunner { .. }) => {
            return Ok(found.into_values().collect());
        }
        Err(error) => return Err(error),
    };
    for name in sources.names()? {
        let plan = BuildPlan::read(engine, &sources, settings, &name).await?;
        let wanted = plan.fingerprint(engine).await?;
        let is = engine
            .stored(&plan.reference)
            .await?
            .and_then(|stored| stored.labels.get(BUILD_LABEL).cloned());
        let summary = found
            .entry((name, plan.reference.clone()))
            .or_insert_with(|| summary(&plan.contract, &plan.name, &plan.reference));
        summary.current = Some(wanted.is_some() && wanted == is);
    }
    Ok(found.into_values().collect())
}

fn summary_of(
    stored: &StoredImage,
    reference: &str,
    settings: &SandboxSettings,
) -> Option<ImageSummary> {
    let contract = ImageContract::from_label(stored.labels.get(CONTRACT_LABEL)?).ok()?;
    let name = short_name(reference, &contract.name, settings);
    let mut summary = summary(&contract, &name, reference);
    summary.digest = Some(stored.digest.to_string());
    summary.size = Some(stored.size);
    Some(summary)
}

/// Returns the name that a job must use for `reference`: the contract's name if that resolves to
/// it, else the reference.
fn short_name(own_reference: &str, name: &ImageName, settings: &SandboxSettings) -> ImageName {
    if reference(&settings.image_reference, name) == own_reference {
        name.clone()
    } else {
        own_reference.parse().unwrap_or_else(|_| name.clone())
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
