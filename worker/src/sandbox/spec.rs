//! What a container is allowed: every cap of the outer wall, in one place.
//!
//! The cells inside have caps of their own, made by the runner; these bound whatever escapes them. Nothing of a job
//! is in here, so nothing of a job is in what the engine shows of a container.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, DeviceRequest, HealthConfig, HostConfig, HostConfigCgroupnsModeEnum,
    HostConfigLogConfig, ResourcesUlimits,
};
use sandhog_common::config::Attach;
use sandhog_common::id::WorkerId;
use sandhog_runner::{RUNNER_CAPABILITIES, RUNNER_PATH};

use super::{EngineFacts, Image, Shape};

/// The label with the worker that made a container.
pub(super) const WORKER_LABEL: &str = "sandhog.worker";

/// The label with the namespace that worker serves.
pub(super) const NAMESPACE_LABEL: &str = "sandhog.namespace";

/// The label with the identity of the queue that worker serves.
pub(super) const QUEUE_LABEL: &str = "sandhog.queue";

/// The label with the image's short name.
pub(super) const IMAGE_LABEL: &str = "sandhog.image";

/// Open files of any process in the container; cells are given less.
const OPEN_FILES: i64 = 8192;

/// Preferred by the kernel over anything of the host when memory runs out there; cells prefer themselves still more.
const OOM_SCORE_ADJ: i64 = 500;

/// The runner's own scratch. Cells mount theirs over it.
const RUNNER_TMPFS: &str = "rw,nosuid,nodev,noexec,size=4m,nr_inodes=256,mode=0700";

/// The container's own `/dev/shm`, which nobody uses: cells mount theirs over it.
const SHM_BYTES: i64 = 1 << 20;

/// The body of the request that makes a container.
pub(super) fn container(
    shape: &Shape,
    attach: Attach,
    facts: &EngineFacts,
    owner: Vec<(&'static str, String)>,
    worker: &WorkerId,
    image: &Image,
) -> ContainerCreateBody {
    let mut labels = HashMap::from([
        (WORKER_LABEL.to_owned(), worker.to_string()),
        (IMAGE_LABEL.to_owned(), image.name.to_string()),
    ]);
    labels.extend(
        owner
            .into_iter()
            .map(|(label, value)| (label.to_owned(), value)),
    );
    ContainerCreateBody {
        image: Some(image.digest.as_str().to_owned()),
        // Stated here so that an image cannot say otherwise.
        entrypoint: Some(vec![RUNNER_PATH.to_owned()]),
        cmd: Some(Vec::new()),
        user: Some("0:0".to_owned()),
        working_dir: Some("/".to_owned()),
        healthcheck: Some(HealthConfig {
            test: Some(vec!["NONE".to_owned()]),
            ..HealthConfig::default()
        }),
        env: Some(Vec::new()),
        hostname: Some("sandhog".to_owned()),
        network_disabled: Some(true),
        tty: Some(false),
        open_stdin: Some(true),
        stdin_once: Some(true),
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        labels: Some(labels),
        host_config: Some(host_config(shape, attach, facts)),
        ..ContainerCreateBody::default()
    }
}

fn host_config(shape: &Shape, attach: Attach, facts: &EngineFacts) -> HostConfig {
    let memory = i64::try_from(shape.memory.0).unwrap_or(i64::MAX);
    HostConfig {
        memory: Some(memory),
        // The same number: memory and swap together, so no swap.
        memory_swap: Some(memory),
        nano_cpus: Some(nano_cpus(shape.cpu_millis.0, facts.cpus)),
        pids_limit: Some(i64::from(shape.pids)),
        ulimits: Some(vec![
            // What cells have; they could not raise it.
            ulimit("core", 1),
            ulimit("memlock", 0),
            ulimit("nofile", OPEN_FILES),
        ]),
        oom_score_adj: Some(OOM_SCORE_ADJ),
        readonly_rootfs: Some(true),
        tmpfs: Some(HashMap::from([(
            "/tmp".to_owned(),
            RUNNER_TMPFS.to_owned(),
        )])),
        shm_size: Some(SHM_BYTES),
        ipc_mode: Some("private".to_owned()),
        network_mode: Some("none".to_owned()),
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
        privileged: Some(false),
        cap_drop: Some(vec!["ALL".to_owned()]),
        // What the runner needs to make cells, and takes from every program it starts.
        cap_add: Some(RUNNER_CAPABILITIES.map(str::to_owned).to_vec()),
        security_opt: Some(vec![
            "no-new-privileges".to_owned(),
            // Docker's AppArmor profile refuses every mount, and a cell is made of mounts. Seccomp stays on.
            "apparmor=unconfined".to_owned(),
        ]),
        log_config: Some(HostConfigLogConfig {
            typ: Some("none".to_owned()),
            config: None,
        }),
        runtime: Some(shape.runtime.to_string()),
        device_requests: device_requests(&shape.gpus, attach),
        init: Some(false),
        // One whose caps are the job's stays until it was asked whether it ran out of memory.
        auto_remove: Some(!shape.caps_the_job),
        ..HostConfig::default()
    }
}

/// What hands a container its GPUs. Always by name: a number of them would let the engine choose.
fn device_requests(gpus: &[String], attach: Attach) -> Option<Vec<DeviceRequest>> {
    if gpus.is_empty() {
        return None;
    }
    let request = match attach {
        Attach::None => return None,
        Attach::Nvidia => DeviceRequest {
            driver: Some("nvidia".to_owned()),
            device_ids: Some(gpus.to_vec()),
            capabilities: Some(vec![vec!["gpu".to_owned()]]),
            ..DeviceRequest::default()
        },
        Attach::Cdi => DeviceRequest {
            driver: Some("cdi".to_owned()),
            device_ids: Some(
                gpus.iter()
                    .map(|uuid| format!("nvidia.com/gpu={uuid}"))
                    .collect(),
            ),
            ..DeviceRequest::default()
        },
    };
    Some(vec![request])
}

/// The engine refuses more CPU than its machine has.
fn nano_cpus(wanted_millis: u64, cpus: u32) -> i64 {
    let millis = wanted_millis.clamp(10, u64::from(cpus) * 1000);
    i64::try_from(millis * 1_000_000).unwrap_or(i64::MAX)
}

fn ulimit(name: &str, most: i64) -> ResourcesUlimits {
    ResourcesUlimits {
        name: Some(name.to_owned()),
        soft: Some(most),
        hard: Some(most),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_are_asked_for_by_name() {
        let gpus = ["GPU-a".to_owned(), "GPU-b".to_owned()];
        let shown = |gpus: &[String], attach| {
            let requests = device_requests(gpus, attach);
            requests.map(|requests| serde_json::to_value(requests).unwrap())
        };
        assert_eq!(
            shown(&gpus, Attach::Nvidia),
            Some(serde_json::json!([{
                "Driver": "nvidia",
                "DeviceIDs": ["GPU-a", "GPU-b"],
                "Capabilities": [["gpu"]],
            }]))
        );
        assert_eq!(
            shown(&gpus, Attach::Cdi),
            Some(serde_json::json!([{
                "Driver": "cdi",
                "DeviceIDs": ["nvidia.com/gpu=GPU-a", "nvidia.com/gpu=GPU-b"],
            }]))
        );
        assert_eq!(shown(&gpus, Attach::None), None);
        assert_eq!(shown(&[], Attach::Nvidia), None);
    }

    #[test]
    fn cpu_is_brought_down_to_the_machine() {
        for (case, wanted, cpus, want) in [
            ("as asked", 1500, 2, 1_500_000_000),
            ("brought down", 4000, 2, 2_000_000_000),
            ("the least the kernel takes", 1, 2, 10_000_000),
        ] {
            assert_eq!(nano_cpus(wanted, cpus), want, "case {case}");
        }
    }
}
