//! Conversion of Docker's answer about itself to engine facts, and the check of its API version.

use bollard::models::{SystemInfo, SystemInfoCgroupVersionEnum};
use sandhog_core::units::ByteCount;
use sha2::{Digest as _, Sha256};

use crate::sandbox::{EngineFacts, SandboxError};

/// The oldest version of the engine's API that has everything that sandboxes need: that of Docker
/// Engine 20.10.
const OLDEST_API: (u32, u32) = (1, 41);

/// Converts the answer of the engine at `endpoint` to facts.
pub(super) fn engine_facts(info: SystemInfo, api_version: &str, endpoint: &str) -> EngineFacts {
    let mut runtimes: Vec<String> = info.runtimes.unwrap_or_default().into_keys().collect();
    runtimes.sort();
    EngineFacts {
        version: format!(
            "{} (API {api_version})",
            info.server_version.unwrap_or_default()
        ),
        kernel: info.kernel_version.unwrap_or_default(),
        runtimes,
        cgroup_version: match info.cgroup_version {
            Some(SystemInfoCgroupVersionEnum::_2) => 2,
            Some(SystemInfoCgroupVersionEnum::_1 | SystemInfoCgroupVersionEnum::EMPTY) | None => 1,
        },
        cpus: info
            .ncpu
            .and_then(|n| u32::try_from(n).ok())
            .unwrap_or(1)
            .max(1),
        memory: ByteCount(
            info.mem_total
                .and_then(|n| u64::try_from(n).ok())
                .unwrap_or_default(),
        ),
        is_local: endpoint.starts_with("unix:"),
        machine: info.id.as_deref().map_or(0, machine_number),
        has_keepers: false,
    }
}

/// Checks that the engine is not too old.
///
/// # Errors
/// [`SandboxError::OldEngine`], with its version.
pub(super) fn require_api(info: &SystemInfo, api_version: &str) -> Result<(), SandboxError> {
    let number = |text: &str| text.trim().parse::<u32>().ok();
    let version = api_version
        .split_once('.')
        .and_then(|(major, minor)| Some((number(major)?, number(minor)?)));
    match version {
        Some(version) if version < OLDEST_API => Err(SandboxError::OldEngine {
            version: info.server_version.clone().unwrap_or_default(),
            api_version: api_version.to_owned(),
        }),
        Some(_) | None => Ok(()),
    }
}

/// Returns a number derived from a text, the same in every process.
fn machine_number(text: &str) -> u64 {
    let digest = Sha256::digest(text.as_bytes());
    digest
        .iter()
        .take(8)
        .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info() -> SystemInfo {
        SystemInfo {
            server_version: Some("19.03.5".to_owned()),
            ..SystemInfo::default()
        }
    }

    #[test]
    fn the_version_names_the_api_and_only_a_socket_is_local() {
        let facts = engine_facts(info(), "1.40", "unix:///run/docker.sock");
        assert_eq!(facts.version, "19.03.5 (API 1.40)");
        assert!(facts.is_local);
        assert!(!engine_facts(info(), "1.40", "tcp://localhost:2375").is_local);
    }

    #[test]
    fn an_engine_that_is_too_old_is_refused() {
        for (api_version, good) in [
            ("1.40", false),
            ("1.9", false),
            ("0.99", false),
            ("1.41", true),
            ("1.41\n", true),
            ("1.100", true),
            ("2.0", true),
            ("unknown", true),
        ] {
            assert_eq!(
                require_api(&info(), api_version).is_ok(),
                good,
                "{api_version:?}"
            );
        }
        let error = require_api(&info(), "1.40").unwrap_err();
        assert_eq!(
            error.to_string(),
            "container engine 19.03.5 is too old: it speaks API 1.40, and 1.41 is needed"
        );
    }
}
