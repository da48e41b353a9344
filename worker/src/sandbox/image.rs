//! Resolution of images: from the short name in a job to the image that the engine has.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bollard::errors::Error as DockerError;
use bollard::models::ImageInspect;
use sandhog_common::id::ImageName;
use sandhog_common::image::{CONTRACT_LABEL, ImageContract};

use super::{Engine, SandboxError};

/// Time for which the engine's answer about an image stays cached.
const BELIEVED_FOR: Duration = Duration::from_secs(2);

/// An image that sandboxes can be started from. Cheap to clone.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// The short name jobs use.
    pub name: ImageName,
    /// The reference of the image in the engine.
    pub reference: String,
    /// The digest of this build.
    pub digest: Digest,
    /// The contract: languages, defaults and features that the image offers.
    pub contract: Arc<ImageContract>,
}

/// The content address of an image: the engine's image id, `sha256:…`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(String);

impl Digest {
    pub(crate) fn new(id: String) -> Self {
        Self(id)
    }

    /// The digest as the engine writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A cached image, and the time at which the engine reported it.
#[derive(Debug)]
pub(super) struct Seen {
    at: Instant,
    image: Image,
}

impl Engine {
    /// Resolves the image that a job names. Results are cached for two seconds, so a rebuilt image
    /// is noticed within that time.
    ///
    /// # Errors
    /// [`SandboxError::UnknownImage`], [`SandboxError::NoContract`], [`SandboxError::BadContract`]
    /// and [`SandboxError::UnusableImage`] are the submitter's fault; all others are the engine's.
    pub async fn resolve(&self, name: &ImageName) -> Result<Image, SandboxError> {
        if let Some(seen) = self.cache().get(name)
            && seen.at.elapsed() < BELIEVED_FOR
        {
            return Ok(seen.image.clone());
        }
        let found = self.look_up(name).await;
        // Only images that exist are cached: an attacker can send any number of names that do not
        // exist.
        match &found {
            Ok(image) => {
                let seen = Seen {
                    at: Instant::now(),
                    image: image.clone(),
                };
                self.cache().insert(name.clone(), seen);
            }
            Err(_) => self.forget(name),
        }
        found
    }

    /// Returns the image as it was last resolved, however long ago; `None` if it never was. Sends
    /// no request to the engine.
    pub(crate) fn seen_before(&self, name: &ImageName) -> Option<Image> {
        self.cache().get(name).map(|seen| seen.image.clone())
    }

    /// Returns the images that serve a model and that the engine has under the name jobs use for
    /// them.
    ///
    /// # Errors
    /// If the engine does not answer.
    pub async fn inference_images(&self) -> Result<Vec<Image>, SandboxError> {
        let template = &self.settings().image_reference;
        let mut found = Vec::new();
        for stored in self.stored_with_label(CONTRACT_LABEL).await? {
            let label = stored.labels.get(CONTRACT_LABEL);
            let contract = label.and_then(|label| ImageContract::from_label(label).ok());
            let Some(contract) = contract.filter(|contract| contract.serve.is_some()) else {
                continue;
            };
            let reference = reference(template, &contract.name);
            if stored.references.contains(&reference) {
                found.push(self.resolve(&contract.name).await?);
            }
        }
        Ok(found)
    }

    /// Removes an image from the cache, so that the next resolution asks the engine.
    pub(super) fn forget(&self, name: &ImageName) {
        self.cache().remove(name);
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, std::collections::HashMap<ImageName, Seen>> {
        self.seen()
            .lock()
            .expect("no code panics while it holds this lock")
    }

    async fn look_up(&self, name: &ImageName) -> Result<Image, SandboxError> {
        let reference = reference(&self.settings().image_reference, name);
        let unknown = |reference: &str| SandboxError::UnknownImage {
            name: name.clone(),
            reference: reference.to_owned(),
        };
        if !is_reference(&reference) {
            return Err(unknown(&reference));
        }
        match self.docker().inspect_image(&reference).await {
            Ok(found) => judge(name, reference, found),
            // The engine answers 400 to text that is not a valid reference.
            Err(DockerError::DockerResponseServerError {
                status_code: 400 | 404,
                ..
            }) => Err(unknown(&reference)),
            Err(source) => Err(SandboxError::Engine {
                step: "inspect image",
                subject: reference,
                source: source.into(),
            }),
        }
    }
}

/// Returns the reference for a name: a short name is inserted into the template; any other name is
/// already a reference.
pub(crate) fn reference(template: &str, name: &ImageName) -> String {
    if name.as_str().contains(['/', ':', '@']) {
        name.as_str().to_owned()
    } else {
        template.replace("{name}", name.as_str())
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

fn judge(name: &ImageName, reference: String, found: ImageInspect) -> Result<Image, SandboxError> {
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
    fn short_names_go_into_the_template() {
        let template = "registry:5000/{name}:v1";
        for (name, want) in [
            ("python", "registry:5000/python:v1"),
            ("mine/python", "mine/python"),
            ("python:3", "python:3"),
            ("sha256:abc", "sha256:abc"),
        ] {
            assert_eq!(reference(template, &name.parse().unwrap()), want);
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
        let judged = |found| judge(&name, "sandhog/x:latest".to_owned(), found);
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
