//! Conversion of Docker's answer about itself to engine facts, and the check of its API version.

use bollard::models::{SystemInfo, SystemInfoCgroupVersionEnum};
use sandhog_core::units::ByteCount;
use sha2::{Digest as _, Sha256};

use crate::sandbox::{EngineFacts, SandboxError};

/// The oldest version of the engine's API that has everything that sandboxes need: that of Docker
/// Engine 20.10.
const OLDEST_API: (u32, u32) = (1, 41);

/// Converts the answer of the engine to facts.
pub(super) fn engine_facts(info: SystemInfo, api_version: String) -> EngineFacts {
    let mut runtimes: Vec<String> = info.runtimes.unwrap_or_default().into_keys().collect();
    runtimes.sort();
    EngineFacts {
        version: info.server_version.unwrap_or_default(),
        api_version,
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
        machine: info.id.as_deref().map_or(0, machine_number),
    }
}

/// Checks that the engine is not too old.
///
/// # Errors
/// [`SandboxError::OldEngine`], with its version.
pub(super) fn require_api(facts: &EngineFacts) -> Result<(), SandboxError> {
    let number = |text: &str| text.trim().parse::<u32>().ok();
    let version = facts
        .api_version
        .split_once('.')
        .and_then(|(major, minor)| Some((number(major)?, number(minor)?)));
    match version {
        Some(version) if version < OLDEST_API => Err(SandboxError::OldEngine {
            version: facts.version.clone(),
            api_version: facts.api_version.clone(),
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

    fn facts(api_version: &str) -> EngineFacts {
        EngineFacts {
            version: "19.03.5".to_owned(),
            api_version: api_version.to_owned(),
            kernel: String::new(),
            runtimes: Vec::new(),
            cgroup_version: 1,
            cpus: 1,
            memory: ByteCount(0),
            machine: 0,
        }
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
                require_api(&facts(api_version)).is_ok(),
                good,
                "{api_version:?}"
            );
        }
        let error = require_api(&facts("1.40")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "container engine 19.03.5 is too old: it speaks API 1.40, and 1.41 is needed"
        );
    }
}
