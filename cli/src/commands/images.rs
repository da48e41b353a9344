//! `sandhog images`: builds, lists and checks images.

use std::path::Path;
use std::time::Duration;

use sandhog_config::Settings;
use sandhog_core::id::{IdError, ImageName};
use sandhog_worker::images::{
    self, BuildOptions, BuiltImage, CheckReport, ImageError, ImageSources, ImageSummary,
};
use sandhog_worker::sandbox::Sandboxes;
use serde_json::json;

use crate::args::{ImagesBuildArgs, ImagesCommand, ImagesListArgs};
use crate::context::AppContext;
use crate::embedded::{connect_engine, show};
use crate::error::CliError;
use crate::exit::Exit;
use crate::output::{Colour, Progress, Table};

/// Runs a subcommand of `sandhog images`.
pub(crate) async fn images(app: &AppContext, command: &ImagesCommand) -> Result<Exit, CliError> {
    match command {
        ImagesCommand::Build(args) => build(app, args).await,
        ImagesCommand::List(args) => list(app, args).await,
        ImagesCommand::Check(args) => check(app, &args.names).await,
    }
}

async fn build(app: &AppContext, args: &ImagesBuildArgs) -> Result<Exit, CliError> {
    let settings = &app.loaded.settings;
    let sandboxes = connect_engine(settings).await?;
    let progress = Progress::start(app.output);
    let options = BuildOptions { force: args.force };
    let mut on_event = |event| show(&progress, &event, args.verbose);
    let wanted = wanted(settings, &args.images)?;
    let sandbox = &settings.sandbox;
    let built = images::build_from(&sandboxes, sandbox, &wanted, &options, &mut on_event).await;
    progress.finish();
    for BuiltImage {
        name,
        reference,
        digest,
        cached,
        took,
        warning,
    } in &built?
    {
        if app.output.is_json() {
            app.output.json(&json!({
                "name": name,
                "reference": reference,
                "digest": digest.to_string(),
                "cached": cached,
                "took_ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
                "warning": warning,
            }))?;
        } else {
            let what = if *cached { "current" } else { "built" };
            app.output.line(&format!("{name} {what} ({reference})"))?;
            if let Some(warning) = warning {
                app.output.warn(Colour::Yellow, warning, None)?;
            }
        }
    }
    Ok(Exit::Success)
}

/// Returns the images that the command line names, each with the location of its folder. A word
/// with a slash is the path of a folder, and so are `.` and `..`.
fn wanted(
    settings: &Settings,
    words: &[String],
) -> Result<Vec<(ImageSources, ImageName)>, CliError> {
    let sandbox = &settings.sandbox;
    if words.is_empty() {
        let sources = ImageSources::find(sandbox)?;
        let names = sources.names()?.into_iter();
        return Ok(names.map(|name| (sources.clone(), name)).collect());
    }
    words
        .iter()
        .map(|word| {
            if word.contains('/') || word == "." || word == ".." {
                return Ok(ImageSources::of_folder(sandbox, Path::new(word))?);
            }
            let name: ImageName = word.parse().map_err(|error: IdError| {
                CliError::new(Exit::Usage, error).hint("the path of a folder needs a slash: ./NAME")
            })?;
            Ok((ImageSources::find(sandbox)?, name))
        })
        .collect()
}

async fn list(app: &AppContext, args: &ImagesListArgs) -> Result<Exit, CliError> {
    let settings = &app.loaded.settings;
    let sandboxes = connect_engine(settings).await?;
    let mut found = images::list(&sandboxes, &settings.sandbox).await?;
    let names = &args.names.names;
    if let Some(unknown) = names
        .iter()
        .find(|name| !found.iter().any(|image| image.name == **name))
    {
        let known: Vec<&str> = found.iter().map(|image| image.name.as_str()).collect();
        let known = known.join(", ");
        let message = format!("unknown image {unknown}; the images are: {known}");
        return Err(CliError::message(Exit::Missing, message));
    }
    found.retain(|image| names.is_empty() || names.contains(&image.name));
    if args.packages {
        return list_packages(app, &sandboxes, &found).await;
    }
    if app.output.is_json() {
        for image in &found {
            app.output.json(image)?;
        }
        return Ok(Exit::Success);
    }
    let mut table = Table::new(["NAME", "STATE", "SIZE", "LANGUAGES", "SUMMARY"]);
    for image in &found {
        table.row([
            image.name.to_string(),
            state(image).to_owned(),
            image
                .size
                .map_or_else(|| "-".to_owned(), |size| format!("{} MiB", size.0 >> 20)),
            image.languages.join(","),
            image.summary.clone(),
        ]);
    }
    app.output.table(&table)?;
    Ok(Exit::Success)
}

/// Lists the Python packages of each image that is built.
async fn list_packages(
    app: &AppContext,
    sandboxes: &Sandboxes,
    found: &[ImageSummary],
) -> Result<Exit, CliError> {
    let progress = Progress::start(app.output);
    let mut table = Table::new(["IMAGE", "PACKAGE", "VERSION"]);
    for image in found.iter().filter(|image| image.digest.is_some()) {
        progress.step(&format!("listing the packages of {}", image.name));
        let packages = images::packages(sandboxes, &image.name).await;
        progress.finish();
        let packages = packages?.unwrap_or_default();
        if app.output.is_json() {
            app.output
                .json(&json!({"name": image.name, "packages": packages}))?;
        }
        for (package, version) in packages {
            table.row([image.name.to_string(), package, version]);
        }
    }
    if !app.output.is_json() {
        app.output.table(&table)?;
    }
    Ok(Exit::Success)
}

const fn state(image: &ImageSummary) -> &'static str {
    match (&image.digest, image.current) {
        (None, _) => "not built",
        (Some(_), Some(true)) => "current",
        (Some(_), Some(false)) => "out of date",
        (Some(_), None) => "no folder here",
    }
}

async fn check(app: &AppContext, names: &[ImageName]) -> Result<Exit, CliError> {
    let settings = &app.loaded.settings;
    let sandboxes = connect_engine(settings).await?;
    let all;
    let names = if names.is_empty() {
        all = ImageSources::find(&settings.sandbox)?.names()?;
        &all
    } else {
        names
    };
    let progress = Progress::start(app.output);
    let mut exit = Exit::Success;
    for name in names {
        progress.step(&format!("checking image {name}"));
        let found = check_one(&sandboxes, settings, name).await;
        progress.finish();
        match found {
            Ok((report, load)) => passed(app, name, &report, load)?,
            Err(error) => {
                let error = CliError::from(error);
                exit = Exit::Unsuccessful;
                if app.output.is_json() {
                    app.output
                        .json(&json!({"name": name, "ok": false, "error": error.chain()}))?;
                } else {
                    app.output.error(&error);
                }
            }
        }
    }
    Ok(exit)
}

/// Runs an image's check program and loads its model.
async fn check_one(
    sandboxes: &Sandboxes,
    settings: &Settings,
    name: &ImageName,
) -> Result<(CheckReport, Option<Duration>), ImageError> {
    let report = images::check(sandboxes, name).await?;
    images::check_size(&report.image.contract, &settings.sandbox)?;
    let load = images::check_model(sandboxes, &report.image).await?;
    Ok((report, load))
}

fn passed(
    app: &AppContext,
    name: &ImageName,
    report: &CheckReport,
    load: Option<Duration>,
) -> Result<(), CliError> {
    let start_ms = u64::try_from(report.start.as_millis()).unwrap_or(u64::MAX);
    let run_ms = report
        .run
        .map(|run| u64::try_from(run.as_millis()).unwrap_or(u64::MAX));
    let load_ms = load.map(|load| u64::try_from(load.as_millis()).unwrap_or(u64::MAX));
    if app.output.is_json() {
        return app.output.json(&json!({
            "name": name,
            "ok": true,
            "start_ms": start_ms,
            "run_ms": run_ms,
            "load_ms": load_ms,
        }));
    }
    let run = run_ms.map_or_else(
        || "no check program".to_owned(),
        |ms| format!("check ran in {ms} ms"),
    );
    let contract = &report.image.contract;
    let model = match (load_ms, &contract.serve) {
        (Some(ms), _) => format!(", model loaded in {ms} ms"),
        (None, Some(_)) => ", model not loaded: it needs a GPU".to_owned(),
        (None, None) => String::new(),
    };
    app.output.line(&format!(
        "{name} ok (container ready in {start_ms} ms, {run}{model})"
    ))
}
