//! Directories of the worker that the engine mounts into containers.
//!
//! The engine must have such a directory at the same path. A worker in a container shares no
//! directory with the engine, except for those that are mounted into its container.

use std::path::Path;

use bollard::errors::Error as DockerError;
use bollard::models::{ContainerCreateBody, HostConfig, Mount, MountType};
use bollard::query_parameters::CreateContainerOptions;

use super::Engine;
use crate::sandbox::SandboxError;

/// A reference that no image can have: that of an image whose digest is zero.
const NO_IMAGE: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

/// Returns the part of a container's configuration that mounts a directory of the engine's machine.
/// The engine refuses a directory that does not exist there.
pub(super) fn bind_mount(source: &Path, target: &str) -> Mount {
    Mount {
        typ: Some(MountType::BIND),
        source: Some(source.display().to_string()),
        target: Some(target.to_owned()),
        ..Mount::default()
    }
}

/// Checks that the engine has this directory of the worker. Asks the engine for a container with
/// the directory and an image that cannot exist; the engine checks the directory first, so its
/// refusal tells which of the two it lacks.
///
/// # Errors
/// [`SandboxError::SocketDirectoryNotShared`] if the engine does not have the directory.
pub(super) async fn require_shared(engine: &Engine, dir: &Path) -> Result<(), SandboxError> {
    let body = ContainerCreateBody {
        image: Some(NO_IMAGE.to_owned()),
        host_config: Some(HostConfig {
            mounts: Some(vec![bind_mount(dir, "/run/sandhog")]),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    };
    let asked = engine
        .docker()
        .create_container(None::<CreateContainerOptions>, body)
        .await;
    match asked {
        Err(DockerError::DockerResponseServerError {
            status_code: 400,
            message,
        }) => Err(SandboxError::SocketDirectoryNotShared {
            path: dir.to_owned(),
            message,
        }),
        // If the engine checks the image first, the start of a keeper tells the same.
        Err(DockerError::DockerResponseServerError { .. }) | Ok(_) => Ok(()),
        Err(source) => Err(SandboxError::EngineRequest {
            step: "check the directory",
            subject: dir.display().to_string(),
            source: source.into(),
        }),
    }
}
