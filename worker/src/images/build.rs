//! Building of images.

use std::collections::HashMap;
use std::time::Instant;

use sandhog_config::SandboxSettings;
use sandhog_core::id::ImageName;
use sandhog_core::image::CONTRACT_LABEL;

use super::base::{BASE_REFERENCE, ensure_base};
use super::check::check_size;
use super::output_tail::OutputTail;
use super::plan::{BUILD_LABEL, BuildPlan};
use super::{BuildEvent, BuiltImage, ImageError, ImageSources};
use crate::sandbox::{BuildRecipe, BuildResult, Digest, ImageBuilder, SandboxError, Sandboxes};

/// Options of a build.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BuildOptions {
    /// Build even images that are up to date, and repeat every step.
    pub force: bool,
}

/// Builds the named images, or all images if none is named. Images that are up to date are not
/// rebuilt.
///
/// # Errors
/// On the first image that cannot be built, or if the provider of `sandboxes` builds no images.
pub async fn build(
    sandboxes: &Sandboxes,
    settings: &SandboxSettings,
    names: &[ImageName],
    options: &BuildOptions,
    progress: &mut (dyn FnMut(BuildEvent) + Send),
) -> Result<Vec<BuiltImage>, ImageError> {
    let sources = ImageSources::find(settings)?;
    let names = match names {
        [] => sources.names()?,
        some => some.to_vec(),
    };
    let wanted: Vec<_> = names
        .into_iter()
        .map(|name| (sources.clone(), name))
        .collect();
    build_from(sandboxes, settings, &wanted, options, progress).await
}

/// Builds images, each from the folder of its sources. Images that are up to date are not rebuilt.
///
/// # Errors
/// On the first image that cannot be built, or if the provider of `sandboxes` builds no images.
pub async fn build_from(
    sandboxes: &Sandboxes,
    settings: &SandboxSettings,
    wanted: &[(ImageSources, ImageName)],
    options: &BuildOptions,
    progress: &mut (dyn FnMut(BuildEvent) + Send),
) -> Result<Vec<BuiltImage>, ImageError> {
    let builder = sandboxes.builder()?;
    // All are read before the first is built, so that an error in the last is found before any time
    // is spent.
    let mut plans = Vec::with_capacity(wanted.len());
    for (sources, name) in with_parents(wanted)? {
        plans.push(BuildPlan::read(builder, &sources, settings, &name).await?);
    }
    let mut built = Vec::with_capacity(plans.len());
    for plan in &plans {
        let done = build_one(builder, settings, plan, options, progress).await?;
        progress(BuildEvent::Finished(done.clone()));
        built.push(done);
    }
    Ok(built)
}

/// Returns the images and those whose folders they extend, each once and after the image that it
/// extends.
fn with_parents(
    wanted: &[(ImageSources, ImageName)],
) -> Result<Vec<(ImageSources, ImageName)>, ImageError> {
    let mut ordered = Vec::with_capacity(wanted.len());
    for (sources, name) in wanted {
        for folder in sources.lineage(name)?.folders.into_iter().rev() {
            let image = (sources.clone(), folder);
            if !ordered.contains(&image) {
                ordered.push(image);
            }
        }
    }
    Ok(ordered)
}

async fn build_one(
    builder: &dyn ImageBuilder,
    settings: &SandboxSettings,
    plan: &BuildPlan,
    options: &BuildOptions,
    progress: &mut (dyn FnMut(BuildEvent) + Send),
) -> Result<BuiltImage, ImageError> {
    let began = Instant::now();
    let done = |digest, cached| BuiltImage {
        name: plan.name.clone(),
        reference: plan.reference.clone(),
        digest,
        cached,
        took: began.elapsed(),
        warning: check_size(&plan.contract, settings)
            .err()
            .map(|error| error.to_string()),
    };
    if plan
        .starts_from()
        .iter()
        .any(|from| BASE_REFERENCE.strip_suffix(":latest") == Some(from) || from == BASE_REFERENCE)
    {
        ensure_base(builder, progress).await?;
    }
    let fingerprint = plan.fingerprint(builder).await?;
    let before = builder.labelled(&plan.reference).await?;
    if !options.force
        && let Some(found) = &before
        && fingerprint.is_some()
        && found.labels.get(BUILD_LABEL) == fingerprint.as_ref()
    {
        return Ok(done(found.digest.clone(), true));
    }
    progress(BuildEvent::Started {
        name: plan.name.clone(),
    });
    let dockerfile = BuildRecipe {
        subject: plan.reference.clone(),
        context: plan.context(),
        reference: None,
        labels: HashMap::new(),
        no_cache: options.force,
    };
    let mut from = run_stage(builder, plan, dockerfile, progress).await?;
    if let Some(context) = plan.packages_context(from.as_str()) {
        let packages = BuildRecipe {
            subject: plan.reference.clone(),
            context,
            reference: None,
            labels: HashMap::new(),
            no_cache: options.force,
        };
        from = run_stage(builder, plan, packages, progress).await?;
    }
    // Only now does everything that the image starts from certainly exist.
    let fingerprint = plan.fingerprint(builder).await?.unwrap_or_default();
    let finish = BuildRecipe {
        subject: plan.reference.clone(),
        context: plan.finishing_context(from.as_str(), &fingerprint),
        reference: Some(plan.reference.clone()),
        labels: HashMap::from([
            (CONTRACT_LABEL.to_owned(), plan.contract.to_label()),
            (BUILD_LABEL.to_owned(), fingerprint),
        ]),
        no_cache: false,
    };
    let digest = run_stage(builder, plan, finish, progress).await?;
    if let Some(before) = before {
        remove_unnamed(builder, &before.digest).await?;
    }
    Ok(done(digest, false))
}

/// Removes the previous build, which has lost its name to this one, unless it has another name or a
/// container still uses it.
async fn remove_unnamed(builder: &dyn ImageBuilder, digest: &Digest) -> Result<(), SandboxError> {
    let Some(old) = builder.labelled(digest.as_str()).await? else {
        return Ok(());
    };
    if old.references.is_empty()
        && let Err(error) = builder.remove_image(digest.as_str()).await
    {
        tracing::debug!(%digest, %error, "the previous build was not removed");
    }
    Ok(())
}

/// Runs one stage of a build, and reports its progress.
async fn run_stage(
    builder: &dyn ImageBuilder,
    plan: &BuildPlan,
    recipe: BuildRecipe,
    progress: &mut (dyn FnMut(BuildEvent) + Send),
) -> Result<Digest, ImageError> {
    let name = &plan.name;
    let mut tail = OutputTail::default();
    let result = builder
        .run_recipe(recipe, &mut |line| {
            tail.push(line);
            progress(if line.starts_with("Step ") {
                BuildEvent::Step {
                    name: name.clone(),
                    step: line.to_owned(),
                }
            } else {
                BuildEvent::Line {
                    name: Some(name.clone()),
                    line: line.to_owned(),
                }
            });
        })
        .await?;
    match result {
        BuildResult::Built(digest) => Ok(digest),
        BuildResult::Failed(why) => Err(ImageError::Build {
            name: name.clone(),
            detail: format!("{why}{tail}"),
        }),
    }
}
