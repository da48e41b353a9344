//! Docker's image store: listing and removing images, importing a file tree, running a Dockerfile.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error as DockerError;
use bollard::query_parameters::{
    BuildImageOptionsBuilder, CreateImageOptionsBuilder, ListImagesOptionsBuilder,
    RemoveImageOptionsBuilder,
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use sandhog_core::units::ByteCount;
use tokio::io::AsyncReadExt;

use super::Engine;
use crate::sandbox::{Digest, SandboxError, StoredImage};

/// Time after which the engine must have begun its answer to a build or an import.
const BUILD_RESPONSE_TIMEOUT: Duration = Duration::from_secs(900);

/// Size of one chunk of an uploaded file, in bytes.
const IMPORT_CHUNK_BYTES: usize = 1 << 20;

/// A Dockerfile to run, with the files it may copy.
#[derive(Debug)]
pub(crate) struct BuildRecipe {
    /// The name of the recipe in error messages.
    pub(crate) subject: String,
    /// A tar archive with a file `Dockerfile` at its top.
    pub(crate) context: Vec<u8>,
    /// The reference given to the result; without it the result has no name.
    pub(crate) reference: Option<String>,
    /// Labels of the result.
    pub(crate) labels: HashMap<String, String>,
    /// True if the engine must not use cached steps.
    pub(crate) no_cache: bool,
}

/// Result of a build that ended without a fault of the engine.
#[derive(Debug)]
pub(crate) enum BuildResult {
    /// The build produced this image.
    Built(Digest),
    /// A step failed with this message of the engine.
    Failed(String),
}

impl Engine {
    /// Returns the image with that reference or digest, if the engine has it.
    pub(crate) async fn stored(
        &self,
        reference: &str,
    ) -> Result<Option<StoredImage>, SandboxError> {
        match self.docker().inspect_image(reference).await {
            Ok(found) => Ok(Some(StoredImage {
                digest: Digest::new(found.id.unwrap_or_default()),
                references: without_placeholder(found.repo_tags.unwrap_or_default()),
                labels: found
                    .config
                    .and_then(|config| config.labels)
                    .unwrap_or_default(),
                size: byte_count(found.size.unwrap_or_default()),
            })),
            Err(DockerError::DockerResponseServerError {
                status_code: 400 | 404,
                ..
            }) => Ok(None),
            Err(source) => Err(failed("inspect image", reference, source)),
        }
    }

    /// Returns every image that carries `label`.
    pub(crate) async fn stored_with_label(
        &self,
        label: &str,
    ) -> Result<Vec<StoredImage>, SandboxError> {
        let options = ListImagesOptionsBuilder::new()
            .filters(&HashMap::from([("label", vec![label])]))
            .build();
        let found = self
            .docker()
            .list_images(Some(options))
            .await
            .map_err(|source| failed("list images with label", label, source))?;
        Ok(found
            .into_iter()
            .map(|image| StoredImage {
                digest: Digest::new(image.id),
                references: without_placeholder(image.repo_tags),
                labels: image.labels,
                size: byte_count(image.size),
            })
            .collect())
    }

    /// Creates an image of one layer from a tar archive of a file tree. `changes` are Dockerfile
    /// instructions.
    pub(crate) async fn import(
        &self,
        archive: &Path,
        reference: &str,
        changes: Vec<String>,
    ) -> Result<(), SandboxError> {
        let (repository, tag) = match reference.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => (repository, tag),
            Some(_) | None => (reference, "latest"),
        };
        let options = CreateImageOptionsBuilder::new()
            .from_src("-")
            .repo(repository)
            .tag(tag)
            .changes(changes)
            .build();
        let file = tokio::fs::File::open(archive)
            .await
            .map_err(|source| SandboxError::Engine {
                step: "import image",
                subject: reference.to_owned(),
                source: source.into(),
            })?;
        let docker = self.build_client();
        let mut progress = docker.create_image(
            Some(options),
            Some(bollard::body_try_stream(chunks(file))),
            None,
        );
        while let Some(step) = progress.next().await {
            step.map_err(|source| failed("import image", reference, source))?;
        }
        Ok(())
    }

    /// Runs a Dockerfile with the engine's own builder and the host's network. Passes each line
    /// that the build prints to `line`.
    pub(crate) async fn run_recipe(
        &self,
        recipe: BuildRecipe,
        line: &mut (dyn FnMut(&str) + Send),
    ) -> Result<BuildResult, SandboxError> {
        let mut options = BuildImageOptionsBuilder::new()
            .dockerfile("Dockerfile")
            .networkmode("host")
            .rm(true)
            .forcerm(true)
            .nocache(recipe.no_cache)
            .labels(&recipe.labels);
        if let Some(reference) = &recipe.reference {
            options = options.t(reference);
        }
        let docker = self.build_client();
        let mut progress = Box::pin(docker.build_image(
            options.build(),
            None,
            Some(bollard::body_full(Bytes::from(recipe.context))),
        ));
        let mut built = None;
        while let Some(step) = progress.next().await {
            match step {
                Ok(info) => {
                    for text in info.stream.unwrap_or_default().lines() {
                        let text = strip_control(text);
                        if is_user_output(&text) {
                            line(&text);
                        }
                    }
                    built = info.aux.and_then(|aux| aux.id).or(built);
                }
                Err(DockerError::DockerStreamError { error }) => {
                    return Ok(BuildResult::Failed(error));
                }
                // The engine rejects a Dockerfile that is invalid as a whole before the first step.
                Err(DockerError::DockerResponseServerError {
                    status_code: 400,
                    message,
                }) => return Ok(BuildResult::Failed(message)),
                Err(source) => return Err(failed("build image", &recipe.subject, source)),
            }
        }
        match built {
            Some(id) => Ok(BuildResult::Built(Digest::new(id))),
            None => Ok(BuildResult::Failed(
                "the engine reported no image at the end of the build".to_owned(),
            )),
        }
    }

    /// Removes a name from an image. The engine deletes the image when its last name is removed.
    ///
    /// # Errors
    /// If the engine rejects the request, for example because a container uses the image. A missing
    /// image is a success.
    pub async fn remove_image(&self, reference: &str) -> Result<(), SandboxError> {
        let options = RemoveImageOptionsBuilder::new().build();
        match self
            .docker()
            .remove_image(reference, Some(options), None)
            .await
        {
            Ok(_) => Ok(()),
            Err(DockerError::DockerResponseServerError {
                status_code: 404, ..
            }) => Ok(()),
            Err(source) => Err(failed("remove image", reference, source)),
        }
    }

    fn build_client(&self) -> Docker {
        self.docker().clone().with_timeout(BUILD_RESPONSE_TIMEOUT)
    }
}

/// Drops the placeholder that older engines list for an image without a name.
fn without_placeholder(mut references: Vec<String>) -> Vec<String> {
    references.retain(|reference| reference != "<none>:<none>");
    references
}

/// Returns a line without terminal control sequences. The engine colours what a step writes to
/// standard error, and the step itself may print anything.
fn strip_control(text: &str) -> String {
    text.replace("\u{1b}[91m", "")
        .replace("\u{1b}[0m", "")
        .chars()
        .filter(|c| !c.is_control())
        .collect::<String>()
        .trim_end()
        .to_owned()
}

/// Returns whether a line is more than the engine's own progress output.
fn is_user_output(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(" --->")
        && !text.starts_with("Removing intermediate container")
}

fn failed(step: &'static str, subject: &str, source: DockerError) -> SandboxError {
    SandboxError::Engine {
        step,
        subject: subject.to_owned(),
        source: source.into(),
    }
}

fn byte_count(size: i64) -> ByteCount {
    ByteCount(u64::try_from(size).unwrap_or_default())
}

/// Returns the content of a file in chunks.
fn chunks(file: tokio::fs::File) -> impl Stream<Item = std::io::Result<Bytes>> {
    stream::try_unfold(file, |mut file| async move {
        let mut chunk = Vec::with_capacity(IMPORT_CHUNK_BYTES);
        let read = file.read_buf(&mut chunk).await?;
        Ok((read > 0).then(|| (Bytes::from(chunk), file)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_output_is_plain_and_to_the_point() {
        for (case, raw, want) in [
            (
                "colour",
                "\u{1b}[91mWARNING: x\u{1b}[0m",
                Some("WARNING: x"),
            ),
            ("control", "a\rb\u{7}  ", Some("ab")),
            ("layer", " ---> 9f2c0a58b01a", None),
            ("running", " ---> Running in e17bee3a26f7", None),
            (
                "bookkeeping",
                "Removing intermediate container e17bee3a26f7",
                None,
            ),
            ("only colour", "\u{1b}[0m", None),
        ] {
            let text = strip_control(raw);
            let said = is_user_output(&text).then_some(text.as_str());
            assert_eq!(said, want, "case {case}");
        }
    }
}
