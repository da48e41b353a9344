//! The images a worker here needs, built where they are missing or out of date.

use sandhog_common::config::Settings;
use sandhog_common::id::ImageName;
use sandhog_worker::images::{self, BuildEvent, BuildOptions, Built, ImageError};
use sandhog_worker::sandbox::Engine;

use crate::exit::Exit;
use crate::fault::Fault;
use crate::output::Progress;

/// A connection to the engine for building and checking images.
///
/// # Errors
/// When the engine does not answer.
pub(crate) async fn connect_engine(settings: &Settings) -> Result<Engine, Fault> {
    let fault = |e| Fault::new(Exit::Fault, anyhow::Error::new(e));
    let own = format!("cli-{}", std::process::id());
    // A namespace of our own: workers remove containers of theirs whose worker they do not know.
    let namespace = own.parse().map_err(fault)?;
    let name = own.parse().map_err(fault)?;
    Ok(Engine::connect(&settings.sandbox, &namespace, &name).await?)
}

/// Builds what is missing or out of date: the named images, or all that have a folder. An image without a folder
/// here may still be with the engine, so that is not an error.
///
/// # Errors
/// When an image cannot be built.
pub(crate) async fn ensure_images(
    engine: &Engine,
    settings: &Settings,
    names: &[ImageName],
    progress: &Progress,
) -> Result<Vec<Built>, Fault> {
    let options = BuildOptions::default();
    let mut on_event = |event| show(progress, &event, false);
    let built = images::build(engine, &settings.sandbox, names, &options, &mut on_event).await;
    progress.finish();
    match built {
        Ok(built) => Ok(built),
        Err(
            ImageError::NoFolder { .. }
            | ImageError::UnknownFolder { .. }
            | ImageError::NoRunner { .. },
        ) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

/// Shows what the build does; with `verbose` every line it prints.
pub(crate) fn show(progress: &Progress, event: &BuildEvent, verbose: bool) {
    match event {
        BuildEvent::Base { reference, note } => {
            progress.done(note);
            progress.step(&format!("making {reference}"));
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
                || "making the base image".to_owned(),
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
