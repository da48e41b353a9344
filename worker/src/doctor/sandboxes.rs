//! Checks of the container engine, the images, and the features of their sandboxes.

use std::path::Path;
use std::time::{Duration, Instant};

use sandhog_config::{KEEPERS_SCHEME, NO_ENGINE, Settings};
use sandhog_core::id::{ImageName, Namespace, WorkerId};
use sandhog_protocol::frames::{CgroupSupport, Features};

use super::Finding;
use super::gpu::{check_gpu_attachment, check_gpu_driver};
use super::keepers::{check_directory, keeper_finding};
use super::machine_limits::check_machine_limits;
use crate::images::{self, ImageSummary};
use crate::sandbox::{
    SandboxError, SandboxOwner, SandboxSource, Sandboxes, Shape, connect, is_short,
};
use sandhog_core::error_chain::error_chain;

/// Checks the container engine, the images, and the features of a sandbox of each image.
///
/// Starting a sandbox takes a second or more, so `begins` is called with the name of each thing
/// before it is checked.
pub async fn check_sandboxes(
    settings: &Settings,
    begins: &mut (dyn FnMut(&str) + Send),
    found: &mut (dyn FnMut(Finding) + Send),
) {
    let own = format!("doctor-{}", std::process::id());
    // A separate namespace, because workers remove containers of their namespace whose worker is
    // unknown.
    let namespace: Namespace = own
        .parse()
        .expect("letters, a hyphen and digits make a namespace");
    let name: WorkerId = own
        .parse()
        .expect("letters, a hyphen and digits make a worker's name");
    let sandbox = &settings.sandbox;
    if sandbox.engine == NO_ENGINE {
        let detail = "none here (sandbox.engine is none); run `sandhog doctor` on a worker's \
                      machine to check its engine";
        return found(Finding::ok("engine", detail));
    }
    let owner = SandboxOwner {
        namespace,
        worker: name,
        queue: None,
    };
    // Before the connection, which fails if no keeper can be used.
    if let Some(directory) = sandbox.engine.strip_prefix(KEEPERS_SCHEME) {
        check_directory(Path::new(directory), found).await;
    }
    match connect(sandbox, &settings.pool, settings.gpu.attach, owner).await {
        Ok(sandboxes) => {
            check_connected(settings, &sandboxes, begins, found).await;
            sandboxes.close().await;
        }
        Err(error) => found(Finding::ok("engine", error_chain(&error)).fail(error.hint())),
    }
}

async fn check_connected(
    settings: &Settings,
    sandboxes: &Sandboxes,
    begins: &mut (dyn FnMut(&str) + Send),
    found: &mut (dyn FnMut(Finding) + Send),
) {
    let sandbox = &settings.sandbox;
    check_engine(sandboxes, settings, found);
    check_machine_limits(settings, sandboxes.facts())
        .into_iter()
        .for_each(&mut *found);
    let gpus = check_gpu_driver(settings, found).await;
    let images = match images::list(sandboxes, sandbox).await {
        Ok(images) => images,
        Err(error) => return found(Finding::ok("images", error_chain(&error)).fail(error.hint())),
    };
    if images.is_empty() {
        found(
            Finding::ok("images", "none, and no folder of images").fail(Some(
                "set sandbox.images_dir to the folder that holds the images' folders",
            )),
        );
    }
    let (named, others): (Vec<&ImageSummary>, Vec<&ImageSummary>) =
        images.iter().partition(|image| is_short(&image.name));
    for (image, place) in named.iter().zip(1..) {
        begins(&format!(
            "image {} ({place} of {})",
            image.name,
            named.len()
        ));
        check_image(sandboxes, settings, image, found).await;
    }
    if *sandboxes.source() == SandboxSource::OwnKeepers {
        let reports = sandboxes.keepers().await;
        reports.iter().map(keeper_finding).for_each(&mut *found);
    }
    if let Some(built) = named.iter().find(|image| image.digest.is_some()) {
        begins("container runtimes");
        check_runtimes(sandboxes, settings, &built.name, found).await;
        let attach = settings.gpu.attach;
        check_gpu_attachment(sandboxes, attach, &built.name, &gpus, found).await;
    }
    if !others.is_empty() {
        let detail = format!(
            "{} with a contract under other references; not checked",
            others.len()
        );
        found(Finding::ok("other images", detail));
    }
}

fn check_engine(
    sandboxes: &Sandboxes,
    settings: &Settings,
    found: &mut (dyn FnMut(Finding) + Send),
) {
    let (facts, source) = (sandboxes.facts(), sandboxes.source());
    found(Finding::ok("engine", facts.version.as_str()));
    found(Finding::ok("sandboxes", source.to_string()));
    // Keepers do not know the runtime of their containers.
    if *source != SandboxSource::ForeignKeepers {
        found(Finding::ok(
            "engine runtime",
            format!(
                "{} of {}",
                settings.sandbox.runtime,
                facts.runtimes.join(", ")
            ),
        ));
    }
    found(Finding::ok(
        "kernel",
        format!("{}, cgroup v{}", facts.kernel, facts.cgroup_version),
    ));
    let machine = Finding::ok(
        "engine machine",
        format!("{} cores, {} MiB", facts.cpus, facts.memory.0 >> 20),
    );
    found(if settings.sandbox.memory > facts.memory {
        machine.warn("sandbox.memory is more than the machine has: lower it")
    } else {
        machine
    });
}

async fn check_image(
    sandboxes: &Sandboxes,
    settings: &Settings,
    image: &ImageSummary,
    found: &mut (dyn FnMut(Finding) + Send),
) {
    const BUILD: &str = "`sandhog images build` builds it";
    let subject = format!("image {}", image.name);
    match (&image.digest, image.current) {
        (None, _) => return found(Finding::ok(&subject, "not built").warn(BUILD)),
        (Some(_), Some(false)) => found(Finding::ok(&subject, "out of date").warn(BUILD)),
        (Some(_), Some(true)) => found(Finding::ok(&subject, "current")),
        (Some(_), None) => found(Finding::ok(&subject, "built elsewhere")),
    }
    let subject = format!("sandbox of {}", image.name);
    found(match images::check(sandboxes, &image.name).await {
        Ok(report) => match images::check_size(&report.image.contract, &settings.sandbox) {
            Ok(()) => features_finding(&subject, report.start, &report.features),
            Err(error) => Finding::ok(&subject, error.to_string()).fail(error.hint()),
        },
        Err(error) => Finding::ok(&subject, error_chain(&error)).fail(error.hint()),
    });
}

/// Starts a container under each runtime that jobs may use, to find its features.
async fn check_runtimes(
    sandboxes: &Sandboxes,
    settings: &Settings,
    image: &ImageName,
    found: &mut (dyn FnMut(Finding) + Send),
) {
    let sandbox = &settings.sandbox;
    let mut runtimes = vec![&sandbox.runtime];
    runtimes.extend(
        sandbox
            .job_runtimes
            .iter()
            .filter(|runtime| **runtime != sandbox.runtime),
    );
    for runtime in runtimes {
        let subject = format!("runtime {runtime}");
        let probed = async {
            let image = sandboxes.resolve(image).await?;
            let shape = Shape {
                runtime: runtime.clone(),
                ..sandboxes.shape(&image)
            };
            let began = Instant::now();
            let probe = sandboxes.start_shaped(&image, &shape).await?;
            let start = began.elapsed();
            let features = probe.features().clone();
            probe.destroy().await;
            Ok::<_, SandboxError>((start, features))
        };
        found(match probed.await {
            Ok((start, features)) => features_finding(&subject, start, &features),
            Err(error) => Finding::ok(&subject, error_chain(&error)).fail(error.hint()),
        });
    }
}

/// Returns the finding about the features that a sandbox gives its cells.
fn features_finding(subject: &str, start: Duration, features: &Features) -> Finding {
    let Features {
        cgroup,
        network_namespace,
        seccomp,
        missing,
        memory_bytes: _,
    } = features;
    let cgroup = match cgroup {
        CgroupSupport::V2 => "cgroup v2",
        CgroupSupport::V1 => "cgroup v1",
        CgroupSupport::None => "no cgroup (the container's caps are the job's)",
    };
    let mut features = vec![cgroup];
    if *network_namespace {
        features.push("network namespace");
    }
    if *seccomp {
        features.push("seccomp");
    }
    let finding = Finding::ok(
        subject,
        format!(
            "ready in {} ms; each cell has {}",
            start.as_millis(),
            features.join(", ")
        ),
    );
    if missing.is_empty() {
        finding
    } else {
        finding.warn(&format!("missing here: {}", missing.join("; ")))
    }
}
