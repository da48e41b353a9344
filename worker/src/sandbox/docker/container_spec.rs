//! Configuration of a container: every cap of the outer wall, in one place.
//!
//! The runner gives each cell caps of its own; these caps bound a program that escapes from its
//! cell. The configuration contains no data of a job, so the engine's output about a container
//! shows none.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, DeviceRequest, HealthConfig, HostConfig, HostConfigCgroupnsModeEnum,
    HostConfigLogConfig, ResourcesUlimits,
};
use sandhog_config::Attach;
use sandhog_core::id::WorkerId;
use sandhog_protocol::install::{RUNNER_CAPABILITIES, RUNNER_PATH};

use super::labels::{IMAGE_LABEL, WORKER_LABEL};
use crate::sandbox::{EngineFacts, Image, Shape};

/// Limit of open files for each process in the container; cells get a lower one.
const OPEN_FILES: i64 = 8192;

/// OOM score adjustment that makes the kernel kill the container's processes before those of the
/// host. Cells have a still higher one.
const OOM_SCORE_ADJ: i64 = 500;

/// Options of the runner's own scratch directory. Cells mount theirs over it.
const RUNNER_TMPFS: &str = "rw,nosuid,nodev,noexec,size=4m,nr_inodes=256,mode=0700";

/// Size of the container's own `/dev/shm`, which is unused: cells mount theirs over it.
const SHM_BYTES: i64 = 1 << 20;

/// Returns the body of the request that creates a container.
pub(super) fn container_spec(
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
        // Stated here so that an image cannot override it.
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
        // Limit of memory and swap together. Equal to the memory limit, so there is no swap.
        memory_swap: Some(memory),
        nano_cpus: Some(nano_cpus(shape.cpu_millis.0, facts.cpus)),
        pids_limit: Some(i64::from(shape.pids)),
        ulimits: Some(vec![
            // The limits of cells, which a cell could not raise.
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
        // The capabilities that the runner needs to create cells. It drops them in every program it
        // starts.
        cap_add: Some(RUNNER_CAPABILITIES.map(str::to_owned).to_vec()),
        security_opt: Some(vec![
            "no-new-privileges".to_owned(),
            // Docker's AppArmor profile denies every mount, and creating a cell requires mounts.
            // Seccomp stays on.
            "apparmor=unconfined".to_owned(),
        ]),
        log_config: Some(HostConfigLogConfig {
            typ: Some("none".to_owned()),
            config: None,
        }),
        runtime: Some(shape.runtime.to_string()),
        device_requests: device_requests(&shape.gpus, attach),
        init: Some(false),
        // A container whose caps are the job's stays until the worker has checked whether it ran
        // out of memory.
        auto_remove: Some(!shape.caps_the_job),
        ..HostConfig::default()
    }
}

/// Returns the request that attaches GPUs to a container. It always lists them by name: with a
/// count, the engine would choose them.
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

/// Clamps a CPU limit to the machine's cores, because the engine rejects a higher one.
fn nano_cpus(wanted_millis: u64, cpus: u32) -> i64 {
    let millis = wanted_millis.clamp(10, u64::from(cpus) * 1000);
    i64::try_from(millis * 1_000_000).unwrap_or(i64::MAX)
}

fn ulimit(name: &str, limit: i64) -> ResourcesUlimits {
    ResourcesUlimits {
        name: Some(name.to_owned()),
        soft: Some(limit),
        hard: Some(limit),
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
