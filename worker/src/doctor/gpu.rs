//! GPU findings for `doctor`: the GPUs found or the reason for their absence, and whether a
//! container can use one.

use sandhog_config::{Attach, GpuChoice, Settings};
use sandhog_core::gpu::GPU_TAG;
use sandhog_core::id::{ImageName, Tag};

use super::Finding;
use crate::gpu::{self, Discovery, FoundGpu, GpuError};
use crate::sandbox::{SandboxError, Sandboxes, Shape};
use sandhog_core::error_chain::error_chain;

/// Queries the driver, reports the findings, and returns the GPUs that jobs would get.
pub(super) async fn check_gpu_driver(
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
    match gpu::discover(&settings.gpu).await {
        Ok(discovery) => {
            report_gpus(&discovery, wanted, found);
            discovery.gpus
        }
        Err(error) => {
            let finding = Finding::ok(SUBJECT, format!("none: {}", error_chain(&error)));
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

/// Reports the GPUs that the driver has.
fn report_gpus(discovery: &Discovery, wanted: bool, found: &mut (dyn FnMut(Finding) + Send)) {
    let mut detail = format!("{} by driver {}", discovery.gpus.len(), discovery.driver);
    if discovery.not_chosen > 0 {
        detail += &format!(", {} left out by gpu.devices", discovery.not_chosen);
    }
    let finding = Finding::ok("gpus", detail);
    found(if discovery.gpus.is_empty() && wanted {
        finding.fail(Some("worker.tags has gpu, but no usable GPU was found"))
    } else {
        finding
    });
    for gpu in &discovery.gpus {
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
    for why in &discovery.left_out {
        let hint = "jobs do not get this GPU; check whether `nvidia-smi` shows it as healthy";
        found(Finding::ok("gpu left out", why.clone()).warn(hint));
    }
}

/// Starts a container with every GPU, to check that the engine can attach them by the method
/// `attach`, with which `sandboxes` is connected.
pub(super) async fn check_gpu_attachment(
    sandboxes: &Sandboxes,
    attach: Attach,
    image: &ImageName,
    gpus: &[FoundGpu],
    found: &mut (dyn FnMut(Finding) + Send),
) {
    const SUBJECT: &str = "gpus in a sandbox";
    if gpus.is_empty() {
        return;
    }
    let started = async {
        let image = sandboxes.resolve(image).await?;
        let shape = Shape {
            gpus: gpus.iter().map(|gpu| gpu.uuid.clone()).collect(),
            ..sandboxes.shape(&image)
        };
        let probe = sandboxes.start_shaped(&image, &shape).await?;
        probe.destroy().await;
        Ok::<_, SandboxError>(())
    };
    found(match (started.await, attach) {
        (Ok(()), Attach::Nvidia) => Finding::ok(SUBJECT, "by the engine's NVIDIA runtime"),
        (Ok(()), Attach::Cdi) => Finding::ok(SUBJECT, "by the Container Device Interface"),
        (Ok(()), Attach::None) => Finding::ok(SUBJECT, "not given (gpu.attach is none)")
            .warn("set gpu.attach to nvidia or cdi: this is for tests"),
        (Err(error), _) => Finding::ok(SUBJECT, error_chain(&error)).fail(Some(
            "install NVIDIA's container toolkit (`nvidia-ctk runtime configure`), \
             or set gpu.attach to cdi",
        )),
    });
}
