//! Docker as a builder of images: importing a file tree, running a Dockerfile, removing images.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use bollard::Docker;
use bollard::errors::Error as DockerError;
use bollard::query_parameters::{
    BuildImageOptionsBuilder, CreateImageOptionsBuilder, RemoveImageOptionsBuilder,
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use tokio::io::AsyncReadExt;

use super::Engine;
use super::store::{failed, without_placeholder};
use crate::sandbox::{
    BuildRecipe, BuildResult, Digest, ImageBuilder, LabelledImage, LineReceiver, SandboxError,
};

/// Time after which the engine must have begun its answer to a build or an import.
const BUILD_RESPONSE_TIMEOUT: Duration = Duration::from_secs(900);

/// Size of one chunk of an uploaded file, in bytes.
const IMPORT_CHUNK_BYTES: usize = 1 << 20;

#[async_trait]
impl ImageBuilder for Engine {
    async fn labelled(&self, reference: &str) -> Result<Option<LabelledImage>, SandboxError> {
        match self.docker().inspect_image(reference).await {
            Ok(found) => Ok(Some(LabelledImage {
                digest: Digest::new(found.id.unwrap_or_default()),
                references: without_placeholder(found.repo_tags.unwrap_or_default()),
                labels: found
                    .config
                    .and_then(|config| config.labels)
                    .unwrap_or_default(),
            })),
            Err(DockerError::DockerResponseServerError {
                status_code: 400 | 404,
                ..
            }) => Ok(None),
            Err(source) => Err(failed("inspect image", reference, source)),
        }
    }

    async fn import(
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
        let file =
            tokio::fs::File::open(archive)
                .await
                .map_err(|source| SandboxError::EngineRequest {
                    step: "import image",
                    subject: reference.to_owned(),
                    source: source.into(),
                })?;
        let docker = build_client(self);
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

    async fn run_recipe(
        &self,
        recipe: BuildRecipe,
        line: LineReceiver<'_>,
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
        let docker = build_client(self);
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

    async fn remove_image(&self, reference: &str) -> Result<(), SandboxError> {
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
}

/// Returns a client that waits longer for the first byte of an answer.
fn build_client(engine: &Engine) -> Docker {
    engine.docker().clone().with_timeout(BUILD_RESPONSE_TIMEOUT)
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
