//! Look-up of images: from the name in a job to the image that the engine has.

use std::sync::Arc;

use bollard::errors::Error as DockerError;
use bollard::models::ImageInspect;
use sandhog_core::id::ImageName;
use sandhog_core::image::{CONTRACT_LABEL, ImageContract};

use super::Engine;
use crate::sandbox::{Digest, Image, SandboxError, reference};

impl Engine {
    /// Looks up the image that a job names.
    ///
    /// # Errors
    /// As [`ImageStore::look_up`](crate::sandbox::ImageStore::look_up).
    pub(super) async fn look_up(&self, name: &ImageName) -> Result<Image, SandboxError> {
        let reference = reference(&self.settings().image_reference, name);
        let unknown = |reference: &str| SandboxError::UnknownImage {
            name: name.clone(),
            reference: reference.to_owned(),
        };
        if !is_reference(&reference) {
            return Err(unknown(&reference));
        }
        match self.docker().inspect_image(&reference).await {
            Ok(found) => validate_image(name, reference, found),
            // The engine answers 400 to text that is not a valid reference.
            Err(DockerError::DockerResponseServerError {
                status_code: 400 | 404,
                ..
            }) => Err(unknown(&reference)),
            Err(source) => Err(SandboxError::EngineRequest {
                step: "inspect image",
                subject: reference,
                source: source.into(),
            }),
        }
    }
}

/// Returns whether hostile text may appear in the path of a request to the engine. The engine
/// validates the rest; this check prevents `..` and empty segments, which could address a resource
/// that is not an image.
fn is_reference(text: &str) -> bool {
    text.split('/').all(|part| {
        part.chars()
            .next()
            .is_some_and(|first| first.is_ascii_alphanumeric())
    })
}

/// Checks that sandboxes can be started from an image, and reads its contract.
fn validate_image(
    name: &ImageName,
    reference: String,
    found: ImageInspect,
) -> Result<Image, SandboxError> {
    let name = name.clone();
    let config = found.config.unwrap_or_default();
    let label = config
        .labels
        .as_ref()
        .and_then(|labels| labels.get(CONTRACT_LABEL));
    let Some(label) = label else {
        return Err(SandboxError::NoContract { name, reference });
    };
    let contract = match ImageContract::from_label(label) {
        Ok(contract) => Arc::new(contract),
        Err(source) => {
            return Err(SandboxError::BadContract {
                name,
                reference,
                source,
            });
        }
    };
    // A volume is a writable directory on the host's disk without a size limit.
    if config.volumes.is_some_and(|volumes| !volumes.is_empty()) {
        return Err(SandboxError::UnusableImage {
            name,
            reference,
            why: "it declares a VOLUME, whose size cannot be capped",
        });
    }
    Ok(Image {
        name,
        reference,
        digest: Digest::new(found.id.unwrap_or_default()),
        contract,
    })
}

#[cfg(test)]
mod tests {
    use bollard::models::ImageConfig;

    use super::*;

    const CONTRACT: &str = r#"{"contract":1,"name":"x","summary":"","language":"sh",
        "languages":{"sh":{"style":"file","file":"main.sh","argv":["/bin/sh","main.sh"]}}}"#;

    fn inspected(label: Option<&str>, volumes: Option<Vec<String>>) -> ImageInspect {
        ImageInspect {
            id: Some("sha256:abc".to_owned()),
            config: Some(ImageConfig {
                labels: label.map(|text| [(CONTRACT_LABEL.to_owned(), text.to_owned())].into()),
                volumes,
                ..ImageConfig::default()
            }),
            ..ImageInspect::default()
        }
    }

    #[test]
    fn hostile_names_never_leave_the_images() {
        for (text, good) in [
            ("sandhog/python:latest", true),
            ("host:5000/a/b@sha256:00", true),
            ("a/../../containers", false),
            ("sandhog/..:latest", false),
            ("a//b", false),
            ("/a", false),
            ("a/", false),
            ("", false),
            (".a", false),
        ] {
            assert_eq!(is_reference(text), good, "case {text:?}");
        }
    }

    #[test]
    fn what_makes_an_image_unusable_is_told_apart() {
        let name: ImageName = "x".parse().unwrap();
        let judged = |found| validate_image(&name, "sandhog/x:latest".to_owned(), found);
        assert_eq!(
            judged(inspected(Some(CONTRACT), None))
                .unwrap()
                .digest
                .as_str(),
            "sha256:abc"
        );
        assert!(matches!(
            judged(inspected(None, None)),
            Err(SandboxError::NoContract { .. })
        ));
        assert!(matches!(
            judged(inspected(Some("{}"), None)),
            Err(SandboxError::BadContract { .. })
        ));
        assert!(matches!(
            judged(inspected(Some(CONTRACT), Some(vec!["/data".to_owned()]))),
            Err(SandboxError::UnusableImage { .. })
        ));
    }
}
