//! Docker's image store: listing the images that sandboxes can be started from.

use std::collections::HashMap;

use bollard::errors::Error as DockerError;
use bollard::models::ImageSummary;
use bollard::query_parameters::ListImagesOptionsBuilder;
use sandhog_core::id::ImageName;
use sandhog_core::image::{CONTRACT_LABEL, ImageContract};
use sandhog_core::units::ByteCount;

use super::Engine;
use crate::sandbox::{Digest, SandboxError, StoredImage, reference};

impl Engine {
    /// Returns every image that has a contract, once for each of its references.
    ///
    /// # Errors
    /// If the engine does not answer.
    pub(super) async fn stored_images(&self) -> Result<Vec<StoredImage>, SandboxError> {
        let options = ListImagesOptionsBuilder::new()
            .filters(&HashMap::from([("label", vec![CONTRACT_LABEL])]))
            .build();
        let found = self
            .docker()
            .list_images(Some(options))
            .await
            .map_err(|source| failed("list images with label", CONTRACT_LABEL, source))?;
        let template = &self.settings().image_reference;
        Ok(found
            .into_iter()
            .flat_map(|image| named_images(image, template))
            .collect())
    }
}

/// Returns the image under each of its references. Leaves out an image whose contract cannot be
/// used, and references that a job cannot name.
fn named_images(image: ImageSummary, template: &str) -> Vec<StoredImage> {
    let label = image.labels.get(CONTRACT_LABEL);
    let Some(contract) = label.and_then(|label| ImageContract::from_label(label).ok()) else {
        return Vec::new();
    };
    let default_reference = reference(template, &contract.name);
    let references = without_placeholder(image.repo_tags).into_iter();
    references
        .filter_map(|reference| {
            let name: ImageName = if reference == default_reference {
                contract.name.clone()
            } else {
                reference.parse().ok()?
            };
            Some(StoredImage {
                name,
                reference,
                digest: Digest::new(image.id.clone()),
                contract: contract.clone(),
                size: Some(byte_count(image.size)),
            })
        })
        .collect()
}

/// Drops the placeholder that older engines list for an image without a name.
pub(super) fn without_placeholder(mut references: Vec<String>) -> Vec<String> {
    references.retain(|reference| reference != "<none>:<none>");
    references
}

/// Returns the error of a failed request about an image.
pub(super) fn failed(step: &'static str, subject: &str, source: DockerError) -> SandboxError {
    SandboxError::EngineRequest {
        step,
        subject: subject.to_owned(),
        source: source.into(),
    }
}

fn byte_count(size: i64) -> ByteCount {
    ByteCount(u64::try_from(size).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTRACT: &str = r#"{"contract":1,"name":"x","summary":"","language":"sh",
        "languages":{"sh":{"style":"file","file":"main.sh","argv":["/bin/sh","main.sh"]}}}"#;

    fn names(label: &str, references: &[&str]) -> Vec<(String, String)> {
        let image = ImageSummary {
            id: "sha256:abc".to_owned(),
            labels: [(CONTRACT_LABEL.to_owned(), label.to_owned())].into(),
            repo_tags: references.iter().map(|&text| text.to_owned()).collect(),
            ..ImageSummary::default()
        };
        named_images(image, "sandhog/{name}:latest")
            .into_iter()
            .map(|stored| (stored.name.to_string(), stored.reference))
            .collect()
    }

    #[test]
    fn an_image_has_its_own_name_only_under_the_reference_of_the_template() {
        let pair = |name: &str, reference: &str| (name.to_owned(), reference.to_owned());
        assert_eq!(
            names(CONTRACT, &["sandhog/x:latest", "mine/x:1", "<none>:<none>"]),
            [pair("x", "sandhog/x:latest"), pair("mine/x:1", "mine/x:1")]
        );
        assert!(names("{}", &["sandhog/x:latest"]).is_empty(), "no contract");
        let long = "x".repeat(300);
        assert!(names(CONTRACT, &[&long]).is_empty(), "no job can name it");
    }
}
