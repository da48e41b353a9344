//! Building of images.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use sandhog_common::config::SandboxSettings;
use sandhog_common::id::ImageName;
use sandhog_common::image::CONTRACT_LABEL;

use super::base::{self, BASE_REFERENCE, Tail};
use super::check::check_size;
use super::plan::{BUILD_LABEL, Plan};
use super::{ImageError, ImageSources};
use crate::sandbox::{Digest, Engine, Ran, Recipe, SandboxError};

/// Options of a build.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BuildOptions {
    /// Build even images that are up to date, and repeat every step.
    pub force: bool,
}

/// Progress of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildEvent {
    /// The base image is missing and is being made from packages.
    Base {
        /// Its reference.
        reference: String,
        /// The reason and the method, in one sentence for people.
        note: String,
    },
    /// One image is being built.
    Started {
        /// The image.
        name: ImageName,
    },
    /// A step of the Dockerfile began.
    Step {
        /// The image.
        name: ImageName,
        /// The step, as the engine prints it.
        step: String,
    },
    /// A step printed a line.
    Line {
        /// The image; `None` for the base.
        name: Option<ImageName>,
        /// The line.
        line: String,
    },
    /// The image is built, or was already up to date.
    Finished(Built),
}

/// An image that exists now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// The image.
    pub name: ImageName,
    /// Its reference.
    pub reference: String,
    /// The digest of this build.
    pub digest: Digest,
    /// True if it was already up to date and nothing was done.
    pub cached: bool,
    /// The time that the build took.
    pub took: Duration,
    /// The reason why its jobs cannot run on this worker although it is built.
    pub warning: Option<String>,
}

/// Builds the named images, or all images if none is named. Images that are up to date are not
/// rebuilt.
///
/// # Errors
/// On the first image that cannot be built.
pub async fn build(
    engine: &Engine,
    settings: &SandboxSettings,
    names: &[ImageName],
    options: &BuildOptions,
    progress: &mut (dyn FnMut(BuildEvent) + Send),
) -> Result<Vec<Built>, ImageError> {
    let sources = ImageSources::find(settings)?;
    let names = match names {
        [] => sources.names()?,
        some => some.to_vec(),
    };
    let wanted: Vec<_> = names
        .into_iter()
        .map(|name| (sources.clone(), name))
        .collect();
    build_from(engine, settings, &wanted, options, progress).await
}

/// Builds images, each from the folder of its sources. Images that are up to date are not rebuilt.
///
/// # Errors
/// On the first image that cannot be built.
pub async fn build_from(
    engine: &Engine,
    settings: &SandboxSettings,
    wanted: &[(ImageSources, ImageName)],
    options: &BuildOptions,
    progress: &mut (dyn FnMut(BuildEvent) + Send),
) -> Result<Vec<Built>, ImageError> {
    // All are read before the first is built, so that an error in the last is found before any time
    // is spent.
    let mut plans = Vec::with_capacity(wanted.len());
    for (sources, name) in with_parents(wanted)? {
        plans.push(Plan::read(engine, &sources, settings, &name).await?);
    }
    let mut built = Vec::with_capacity(plans.len());
    for plan in &plans {
        let done = build_one(engine, settings, plan, options, progress).await?;
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
    engine: &Engine,
    settings: &SandboxSettings,
    plan: &Plan,
    options: &BuildOptions,
    progress: &mut (dyn FnMut(BuildEvent) + Send),
) -> Result<Built, ImageError> {
    let began = Instant::now();
    let done = |digest, cached| Built {
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
        base::ensure(engine, progress).await?;
    }
    let fingerprint = plan.fingerprint(engine).await?;
    let before = engine.stored(&plan.reference).await?;
    if !options.force
        && let Some(there) = &before
        && fingerprint.is_some()
        && there.labels.get(BUILD_LABEL) == fingerprint.as_ref()
    {
        return Ok(done(there.digest.clone(), true));
    }
    progress(BuildEvent::Started {
        name: plan.name.clone(),
    });
    let own = Recipe {
        subject: plan.reference.clone(),
        context: plan.context(),
        reference: None,
        labels: HashMap::new(),
        afresh: options.force,
    };
    let mut from = run(engine, plan, own, progress).await?;
    if let Some(context) = plan.packages_context(from.as_str()) {
        let packages = Recipe {
            subject: plan.reference.clone(),
            context,
            reference: None,
            labels: HashMap::new(),
            afresh: options.force,
        };
        from = run(engine, plan, packages, progress).await?;
    }
    // Only now does everything that the image starts from certainly exist.
    let fingerprint = plan.fingerprint(engine).await?.unwrap_or_default();
    let finish = Recipe {
        subject: plan.reference.clone(),
        context: plan.finishing_context(from.as_str()),
        reference: Some(plan.reference.clone()),
        labels: HashMap::from([
            (CONTRACT_LABEL.to_owned(), plan.contract.to_label()),
            (BUILD_LABEL.to_owned(), fingerprint),
        ]),
        afresh: false,
    };
    let digest = run(engine, plan, finish, progress).await?;
    if let Some(before) = before {
        drop_nameless(engine, &before.digest).await?;
    }
    Ok(done(digest, false))
}

/// Removes the previous build, which has lost its name to this one, unless it has another name or a
/// container still uses it.
async fn drop_nameless(engine: &Engine, digest: &Digest) -> Result<(), SandboxError> {
    let Some(old) = engine.stored(digest.as_str()).await? else {
        return Ok(());
    };
    if old.references.is_empty()
        && let Err(error) = engine.remove_image(digest.as_str()).await
    {
        tracing::debug!(%digest, %error, "the previous build was not removed");
    }
    Ok(())
}

async fn run(
    engine: &Engine,
    plan: &Plan,
    recipe: Recipe,
    progress: &mut (dyn FnMut(BuildEvent) + Send),
) -> Result<Digest, ImageError> {
    let name = &plan.name;
    let mut tail = Tail::default();
    let ran = engine
        .run_recipe(recipe, &mut |line| {
            tail.keep(line);
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
    match ran {
        Ran::Built(digest) => Ok(digest),
        Ran::Failed(why) => Err(ImageError::Build {
            name: name.clone(),
            detail: format!("{why}{tail}"),
        }),
    }
}
