//! GPU findings for `doctor`: the GPUs found or the reason for their absence, and whether a
//! container can use one.

use sandhog_common::config::{Attach, GpuChoice, Settings};
use sandhog_common::gpu::GPU_TAG;
use sandhog_common::id::{ImageName, Tag};

use super::{Found, FoundGpu, GpuError};
use crate::causes::with_causes;
use crate::doctor::Finding;
use crate::sandbox::{Engine, SandboxError, Shape};

/// Queries the driver, reports the findings, and returns the GPUs that jobs would get.
pub(crate) async fn look_at_driver(
    settings: &Settings,
    found: &mut (dyn FnMut(Finding) + Send),
) -> Vec<FoundGpu> {
    const SUBJECT: &str = "gpus";
    let wanted = settings
        .worker
        .tags
        .iter()
        .any(|tag| tag.as_str() == GPU_TAG);
    if settings.gpu.devices == GpuChoice::None {
        found(Finding::ok(SUBJECT, "none (gpu.devices is none)"));
        return Vec::new();
    }
    match super::look(&settings.gpu).await {
        Ok(there) => {
            tell(&there, wanted, found);
            there.gpus
        }
        Err(error) => {
            let finding = Finding::ok(SUBJECT, format!("none: {}", with_causes(&error)));
            let absent = matches!(error, GpuError::NoLibrary { .. });
            found(if settings.gpu.library.is_some() || !absent || wanted {
                finding.fail(Some(error.hint()))
            } else {
                finding
            });
            Vec::new()
        }
    }
}

fn tell(there: &Found, wanted: bool, found: &mut (dyn FnMut(Finding) + Send)) {
    let mut detail = format!("{} by driver {}", there.gpus.len(), there.driver);
    if there.not_chosen > 0 {
        detail += &format!(", {} left out by gpu.devices", there.not_chosen);
    }
    let finding = Finding::ok("gpus", detail);
    found(if there.gpus.is_empty() && wanted {
        finding.fail(Some("worker.tags has gpu, but no usable GPU was found"))
    } else {
        finding
    });
    for gpu in &there.gpus {
        let tags: Vec<&str> = std::iter::once(GPU_TAG)
            .chain(gpu.tag.as_ref().map(Tag::as_str))
            .collect();
        found(Finding::ok(
            &format!("gpu {}", gpu.number),
            format!(
                "{}, {} MiB, {}, offered as {}",
                gpu.name,
                gpu.memory.0 >> 20,
                gpu.uuid,
                tags.join("+")
            ),
        ));
    }
    for why in &there.left_out {
        let hint = "jobs do not get this GPU; check whether `nvidia-smi` shows it as healthy";
        found(Finding::ok("gpu left out", why.clone()).warn(hint));
    }
}

/// Starts a container with every GPU, to check whether the engine can attach them.
pub(crate) async fn look_at_container(
    engine: &Engine,
    attach: Attach,
    image: &ImageName,
    gpus: &[FoundGpu],
    found: &mut (dyn FnMut(Finding) + Send),
) {
    const SUBJECT: &str = "gpus in a sandbox";
    if gpus.is_empty() {
        return;
    }
    let engine = engine.clone().attaching(attach);
    let started = async {
        let image = engine.resolve(image).await?;
        let shape = Shape {
            gpus: gpus.iter().map(|gpu| gpu.uuid.clone()).collect(),
            ..engine.shape(&image)
        };
        engine.start_shaped(&image, &shape).await?.destroy().await;
        Ok::<_, SandboxError>(())
    };
    found(match (started.await, attach) {
        (Ok(()), Attach::Nvidia) => Finding::ok(SUBJECT, "by the engine's NVIDIA runtime"),
        (Ok(()), Attach::Cdi) => Finding::ok(SUBJECT, "by the Container Device Interface"),
        (Ok(()), Attach::None) => Finding::ok(SUBJECT, "not given (gpu.attach is none)")
            .warn("set gpu.attach to nvidia or cdi: this is for tests"),
        (Err(error), _) => Finding::ok(SUBJECT, with_causes(&error)).fail(Some(
            "install NVIDIA's container toolkit (`nvidia-ctk runtime configure`), \
             or set gpu.attach to cdi",
        )),
    });
}
