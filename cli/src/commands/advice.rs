//! Advice about a job that was rejected or could not be started.

use sandhog_core::job::Job;
use sandhog_core::outcome::JobResult;
use sandhog_core::wire::{self, Encoding};

use crate::catalogue::Catalogue;
use crate::quantity::format_size;

/// Returns advice for the error code of a result, if there is any. `job` is the job, if the command
/// has it.
#[must_use]
pub(crate) fn advice(
    catalogue: &Catalogue,
    result: &JobResult,
    job: Option<&Job>,
) -> Option<String> {
    let image = job
        .map(|job| &job.image)
        .or(result.image.as_ref())
        .map(|image| image.as_str());
    match result.error.as_ref()?.code.as_str() {
        "unknown_image" => Some(unknown_image(catalogue, image.unwrap_or_default())),
        "serves_nothing" => Some(
            "an image with a model has a [serve] table in its image.toml \
             (docs/guides/inference.md); `sandhog run --image` runs programs"
                .to_owned(),
        ),
        "bad_image" => Some("rebuild it with `sandhog images build`".to_owned()),
        "unknown_language" => {
            let language = job?.language.as_deref()?;
            let runs = catalogue.image_for(language)?;
            Some(format!("--image {runs} runs {language}"))
        }
        "not_started" => Some(format!(
            "the program must be in the image{}, or be added with --put and called as ./NAME",
            image.map_or_else(String::new, |image| format!(" {image}"))
        )),
        "payload_too_large" => Some(too_large(job?)),
        _no_advice => None,
    }
}

fn too_large(job: &Job) -> String {
    let files: u64 = job.files.values().map(|data| data.0.len() as u64).sum();
    let encoded = wire::encode(job, Encoding::Json).len() as u64;
    format!(
        "the job has {}; its files have {} before they are encoded; build large data into an \
         image (images/README.md), or raise worker.max_payload where the workers run",
        format_size(encoded),
        format_size(files)
    )
}

/// Returns advice about an image that the worker does not know. Jobs name Sandhog's own images by
/// plain names. A name with a tag or a path is a Docker reference, which works only for an image
/// that has a contract.
fn unknown_image(catalogue: &Catalogue, image: &str) -> String {
    let names = catalogue.names();
    let last = image.rsplit('/').next().unwrap_or(image);
    let short = last.split([':', '@']).next().unwrap_or(last);
    if short == image {
        return if names.contains(&image) {
            format!("`sandhog images build {image}` builds it on the worker's machine")
        } else {
            format!(
                "images known on this machine: {}; `sandhog images list` shows which are built",
                names.join(", ")
            )
        };
    }
    let own = if names.contains(&short) {
        format!("try --image {short}; ")
    } else {
        String::new()
    };
    format!(
        "{own}images are not pulled from a registry: each image is a folder with a Dockerfile and \
         an image.toml, which `sandhog images build` builds, and its name has no tag"
    )
}

#[cfg(test)]
mod tests {
    use sandhog_core::outcome::{ErrorInfo, Outcome};

    use super::*;

    #[test]
    fn advice_fits_the_mistake() {
        let told = |code: &str, job: &Job| {
            let result = JobResult::with_error(
                "a".parse().unwrap(),
                Outcome::Rejected,
                ErrorInfo::new(code, "m"),
            );
            advice(&Catalogue::default(), &result, Some(job)).unwrap_or_default()
        };
        let job = |image: &str| Job::code(image.parse().unwrap(), "1");
        let javascript = Job {
            language: Some("javascript".to_owned()),
            ..job("python")
        };
        for (case, told, want) in [
            (
                "a shipped image that is not built",
                told("unknown_image", &job("node")),
                "`sandhog images build node` builds it on the worker's machine",
            ),
            (
                "a typing mistake",
                told("unknown_image", &job("pyton")),
                "images known on this machine: cpp, node, python; `sandhog images list` shows \
                 which are built",
            ),
            (
                "a Docker reference with a tag",
                told("unknown_image", &job("python:3.12")),
                "try --image python; images are not pulled from a registry: each image is a folder \
                 with a Dockerfile and an image.toml, which `sandhog images build` builds, and its \
                 name has no tag",
            ),
            (
                "a language of another image",
                told("unknown_language", &javascript),
                "--image node runs javascript",
            ),
            (
                "a missing program",
                told("not_started", &job("python")),
                "the program must be in the image python, or be added with --put and called as \
                 ./NAME",
            ),
            (
                "files above the limit",
                told(
                    "payload_too_large",
                    &Job {
                        files: [("big".to_owned(), vec![255; 3 << 20].into())].into(),
                        ..job("python")
                    },
                ),
                "the job has 4.0 MiB; its files have 3.0 MiB before they are encoded; build large \
                 data into an image (images/README.md), or raise worker.max_payload where the \
                 workers run",
            ),
            ("anything else", told("bad_limits", &job("python")), ""),
        ] {
            assert_eq!(told, want, "case {case}");
        }
    }
}
