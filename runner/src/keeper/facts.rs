//! The facts of a keeper that do not change while it runs.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use sandhog_protocol::frames;
use sandhog_protocol::install::{BUILD_PATH, CONTRACT_PATH};
use sandhog_protocol::keeper::{Hello, MAX_CONTRACT, VERSION};

use super::error::KeepError;
use crate::cell::{SandboxCgroups, is_mapped};

/// The most bytes in the file with the digest of the build.
const MAX_BUILD: usize = 256;

/// Reads the files of the image and the caps of the container.
///
/// # Errors
/// Fails if a file of the image is missing or not valid.
pub(super) fn read_facts(
    cgroups: &SandboxCgroups,
    no_cgroup: Option<String>,
) -> Result<Hello, KeepError> {
    let contract = read_image_file(CONTRACT_PATH, MAX_CONTRACT)?;
    let build = read_image_file(BUILD_PATH, MAX_BUILD)?;
    let image = image_name(&contract).ok_or_else(|| KeepError::ImageFile {
        path: CONTRACT_PATH.into(),
        reason: "it has no line `name = \"…\"` above its first table".to_owned(),
    })?;
    let caps = cgroups.container_caps();
    Ok(Hello {
        version: VERSION,
        runner_version: frames::VERSION,
        image: image.to_owned(),
        build: build.trim().to_owned(),
        memory_max: caps.memory_bytes,
        cpu_millis: caps.cpu_millis,
        pids_max: caps.pids,
        cgroup: cgroups.support(),
        user_namespace: std::fs::read_to_string("/proc/self/uid_map")
            .is_ok_and(|map| is_mapped(&map)),
        missing: no_cgroup.into_iter().collect(),
        contract,
        ..Hello::default()
    })
}

fn read_image_file(path: &str, most: usize) -> Result<String, KeepError> {
    let failed = |reason: String| KeepError::ImageFile {
        path: path.into(),
        reason,
    };
    let mut text = String::new();
    File::open(Path::new(path))
        .and_then(|file| {
            let most = u64::try_from(most).unwrap_or(u64::MAX);
            file.take(most.saturating_add(1)).read_to_string(&mut text)
        })
        .map_err(|error| failed(error.to_string()))?;
    if text.len() > most {
        return Err(failed(format!("it has more than {most} bytes")));
    }
    if text.trim().is_empty() {
        return Err(failed("it is empty".to_owned()));
    }
    Ok(text)
}

/// Returns the name of the image in its contract. The worker decodes the whole contract; the keeper
/// needs only this line.
fn image_name(contract: &str) -> Option<&str> {
    contract
        .lines()
        .take_while(|line| !line.trim_start().starts_with('['))
        .find_map(|line| {
            let value = line.trim().strip_prefix("name")?.trim_start();
            let value = value.strip_prefix('=')?.trim_start().strip_prefix('"')?;
            value.split_once('"').map(|(name, _rest)| name)
        })
        .filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_an_image_is_read_from_its_contract() {
        for (contract, want) in [
            ("contract = 1\nname = \"python\"\n", Some("python")),
            ("  name=\"a\" # x\n", Some("a")),
            ("[limits]\nname = \"a\"\n", None),
            ("named = \"a\"\n", None),
            ("name = \"\"\n", None),
            ("name = 1\n", None),
            ("", None),
        ] {
            assert_eq!(image_name(contract), want, "{contract:?}");
        }
    }

    #[test]
    fn a_missing_file_is_an_error_with_advice() {
        let error = read_image_file("/no/such/file", 10).unwrap_err();
        assert!(error.to_string().contains("sandhog images build"));
    }
}
