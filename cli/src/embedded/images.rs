//! Builds the images that a worker on this machine needs, if they are missing or out of date.

use sandhog_config::{SandboxSettings, SandboxUnit, Settings};
use sandhog_core::id::ImageName;
use sandhog_worker::images::{self, BuildEvent, BuildOptions, BuiltImage, ImageError};
use sandhog_worker::sandbox::{self, SandboxError, SandboxOwner, Sandboxes};

use crate::error::CliError;
use crate::exit::Exit;
use crate::output::Progress;

/// Connects to the engine to build and check images.
///
/// # Errors
/// Fails if the engine does not answer.
pub(crate) async fn connect_engine(settings: &Settings) -> Result<Sandboxes, CliError> {
    let internal = |e| CliError::new(Exit::Fault, anyhow::Error::new(e));
    let own = format!("cli-{}", std::process::id());
    // A separate namespace, because workers remove containers of their namespace whose worker they
    // do not know.
    let owner = SandboxOwner {
        namespace: own.parse().map_err(internal)?,
        worker: own.parse().map_err(internal)?,
        queue: None,
    };
    // A keeper would not pay for the few sandboxes of a command.
    let sandbox = SandboxSettings {
        unit: SandboxUnit::Container,
        ..settings.sandbox.clone()
    };
    let attach = settings.gpu.attach;
    Ok(sandbox::connect(&sandbox, &settings.pool, attach, owner).await?)
}

/// Builds the named images, or all images that have a folder, if they are missing or out of date.
/// An image without a folder on this machine is not an error, and neither is an engine that cannot
/// build: the engine may already have the image.
///
/// # Errors
/// Fails if an image cannot be built.
pub(crate) async fn ensure_images(
    sandboxes: &Sandboxes,
    settings: &Settings,
    names: &[ImageName],
    progress: &Progress,
) -> Result<Vec<BuiltImage>, CliError> {
    let options = BuildOptions::default();
    let mut on_event = |event| show(progress, &event, false);
    let built = images::build(sandboxes, &settings.sandbox, names, &options, &mut on_event).await;
    progress.finish();
    match built {
        Ok(built) => Ok(built),
        Err(
            ImageError::NoFolder { .. }
            | ImageError::UnknownFolder { .. }
            | ImageError::NoRunner { .. }
            | ImageError::Sandbox(SandboxError::NoImageBuilder { .. }),
        ) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

/// Shows the progress of a build. With `verbose`, shows every line that the build prints.
pub(crate) fn show(progress: &Progress, event: &BuildEvent, verbose: bool) {
    match event {
        BuildEvent::Base { reference, note } => {
            progress.done(note);
            progress.step(&format!("building {reference}"));
        }
        BuildEvent::Started { name } => progress.step(&format!("building image {name}")),
        BuildEvent::Step { name, step } => {
            if verbose {
                progress.done(step);
            }
            progress.detail(&format!("building image {name}"), step);
        }
        BuildEvent::Line { name, line } => {
            if verbose {
                progress.done(line);
            }
            let what = name.as_ref().map_or_else(
                || "building the base image".to_owned(),
                |name| format!("building image {name}"),
            );
            progress.detail(&what, line);
        }
        BuildEvent::Finished(built) if built.cached => {}
        BuildEvent::Finished(built) => progress.done(&format!(
            "built image {} in {:.1} s",
            built.name,
            built.took.as_secs_f64()
        )),
    }
}
