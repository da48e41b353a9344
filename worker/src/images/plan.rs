//! The build plan of an image: its files, the images it starts from, and the hash that tells
//! whether it is up to date.

use sandhog_config::SandboxSettings;
use sandhog_core::id::ImageName;
use sandhog_core::image::{CONTRACT_LABEL, ImageContract};
use sandhog_protocol::install::{BUILD_PATH, CONTRACT_PATH, INSTALL_DIR, RUNNER_PATH};

use super::context::{ContextFile, Fingerprint, context_archive, read_context};
use super::packages_stage::packages_stage;
use super::runner_files::runner_files;
use super::source::DOCKERFILE;
use super::{ImageError, ImageSources};
use crate::sandbox::{ImageBuilder, reference};

/// Label for the hash of everything that an image was built from.
pub(super) const BUILD_LABEL: &str = "sandhog.build";

/// The directory on which cells mount their working directory. It must exist, because the root is
/// read-only.
const WORKING_DIRECTORY: &str = "work";

/// Name under which a Dockerfile's steps find this machine's certificate authorities, if there are
/// any. Behind a proxy that re-signs every connection, nothing can be downloaded without them. They
/// are not part of the image, and so not part of its hash.
const AUTHORITIES_FILE: &str = "host-certificates.crt";

/// Paths at which distributions keep them.
const HOST_AUTHORITY_PATHS: [&str; 2] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
];

/// An image as described by its folder.
#[derive(Debug)]
pub(super) struct BuildPlan {
    pub(super) name: ImageName,
    pub(super) reference: String,
    pub(super) contract: ImageContract,
    /// The folder's files, including the Dockerfile.
    files: Vec<ContextFile>,
    runner: Vec<u8>,
}

impl BuildPlan {
    /// Reads an image's folder. A folder without a Dockerfile stands for the image that it extends,
    /// plus its packages.
    pub(super) async fn read(
        builder: &dyn ImageBuilder,
        sources: &ImageSources,
        settings: &SandboxSettings,
        name: &ImageName,
    ) -> Result<Self, ImageError> {
        let lineage = sources.lineage(name)?;
        let outside = match &lineage.outside {
            Some(parent) => Some(built_contract(builder, settings, parent).await?),
            None => None,
        };
        let contract = sources.contract_of(&lineage, outside.flatten())?;
        let folder = sources.folder(name);
        let mut files = read_context(&folder)?;
        if !files.iter().any(|file| file.path == DOCKERFILE) {
            let Some(parent) = lineage.parent() else {
                return Err(ImageError::Read {
                    path: folder.join(DOCKERFILE),
                    source: std::io::ErrorKind::NotFound.into(),
                });
            };
            let parent = reference(&settings.image_reference, parent);
            files.push(ContextFile::text(DOCKERFILE, format!("FROM {parent}\n")));
        }
        Ok(Self {
            name: name.clone(),
            reference: reference(&settings.image_reference, name),
            contract,
            files,
            runner: sources.runner_bytes()?,
        })
    }

    /// Returns the images that its Dockerfile starts from.
    pub(super) fn starts_from(&self) -> Vec<String> {
        self.files
            .iter()
            .find(|file| file.path == DOCKERFILE)
            .map(|file| base_images(&String::from_utf8_lossy(&file.bytes)))
            .unwrap_or_default()
    }

    /// Returns the hash of everything that the image is built from; `None` while an image that it
    /// starts from is missing.
    pub(super) async fn fingerprint(
        &self,
        builder: &dyn ImageBuilder,
    ) -> Result<Option<String>, ImageError> {
        let mut sum = Fingerprint::default().files(&self.files);
        for reference in self.starts_from() {
            let Some(found) = builder.labelled(&reference).await? else {
                return Ok(None);
            };
            sum = sum.part("from", found.digest.as_str().as_bytes());
        }
        if !self.contract.python.is_empty() {
            sum = sum.files(&packages_stage(&self.contract, ""));
        }
        let sum = sum
            .part("contract", self.contract.to_label().as_bytes())
            .part("finish", finishing_dockerfile("").as_bytes())
            .files(&self.finishing_files());
        Ok(Some(sum.finish()))
    }

    /// Returns the build context of the folder's own Dockerfile.
    pub(super) fn context(&self) -> Vec<u8> {
        let mut files = self.files.clone();
        files.extend(authorities());
        context_archive(&[], &files)
    }

    /// Returns the build context of the stage with the Python packages; `None` if the contract
    /// names none. `from` is the image that the folder's Dockerfile produced.
    pub(super) fn packages_context(&self, from: &str) -> Option<Vec<u8>> {
        if self.contract.python.is_empty() {
            return None;
        }
        let mut files = packages_stage(&self.contract, from);
        files.extend(authorities());
        Some(context_archive(&[], &files))
    }

    /// Returns the build context of the last stage. `from` is the image that the previous stage
    /// produced, and `fingerprint` the hash of the build, which the image states in a file too.
    pub(super) fn finishing_context(&self, from: &str, fingerprint: &str) -> Vec<u8> {
        let mut files = self.finishing_files();
        let build = format!("{fingerprint}\n");
        files.push(ContextFile::text(&format!("root{BUILD_PATH}"), build));
        files.push(ContextFile::text(DOCKERFILE, finishing_dockerfile(from)));
        let folders = [
            "root".to_owned(),
            format!("root/{WORKING_DIRECTORY}"),
            "root/usr".to_owned(),
            "root/usr/lib".to_owned(),
            format!("root{INSTALL_DIR}"),
            format!("root{INSTALL_DIR}/cell"),
        ];
        context_archive(&folders.each_ref().map(String::as_str), &files)
    }

    fn finishing_files(&self) -> Vec<ContextFile> {
        let mut files = vec![ContextFile {
            path: format!("root{RUNNER_PATH}"),
            bytes: self.runner.clone(),
            executable: true,
        }];
        let contract = self.contract.to_toml();
        files.push(ContextFile::text(&format!("root{CONTRACT_PATH}"), contract));
        files.extend(runner_files("root"));
        files
    }
}

/// Returns the file with this machine's certificate authorities, if it has any.
fn authorities() -> Option<ContextFile> {
    HOST_AUTHORITY_PATHS
        .iter()
        .find_map(|path| std::fs::read_to_string(path).ok())
        .map(|text| ContextFile::text(AUTHORITIES_FILE, text))
}

/// Returns the contract of an image that the builder has; `None` if the builder does not have the
/// image, or the image has no contract.
async fn built_contract(
    builder: &dyn ImageBuilder,
    settings: &SandboxSettings,
    name: &ImageName,
) -> Result<Option<ImageContract>, ImageError> {
    let stored = builder
        .labelled(&reference(&settings.image_reference, name))
        .await?;
    Ok(stored
        .and_then(|stored| stored.labels.get(CONTRACT_LABEL).cloned())
        .and_then(|label| ImageContract::from_label(&label).ok()))
}

/// Returns the Dockerfile that adds the runner to an image. It only copies files and sets metadata,
/// and runs no command: the image may have no shell.
fn finishing_dockerfile(from: &str) -> String {
    format!(
        "FROM {from}\nUSER 0:0\nCOPY root/ /\nWORKDIR /\nENTRYPOINT [\"{RUNNER_PATH}\"]\nCMD []\n"
    )
}

/// Returns the images named in `FROM` lines, except earlier stages of the same file and `scratch`.
fn base_images(dockerfile: &str) -> Vec<String> {
    let mut stages = vec!["scratch".to_owned()];
    let mut found = Vec::new();
    for line in dockerfile.lines() {
        let mut words = line.split_whitespace();
        if !words
            .next()
            .is_some_and(|word| word.eq_ignore_ascii_case("FROM"))
        {
            continue;
        }
        let mut words = words.skip_while(|word| word.starts_with("--"));
        let Some(image) = words.next() else { continue };
        if !stages.iter().any(|stage| stage.eq_ignore_ascii_case(image)) {
            found.push(image.to_owned());
        }
        if words
            .next()
            .is_some_and(|word| word.eq_ignore_ascii_case("AS"))
            && let Some(stage) = words.next()
        {
            stages.push(stage.to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dockerfile_starts_from() {
        let dockerfile = "# FROM nothing\nfrom a/b:1 AS build\nRUN x\n\
                          FROM --platform=linux/amd64 c AS d\nFROM build\nFROM Scratch\nFROM\n\
                          COPY --from=build / /\n";
        assert_eq!(base_images(dockerfile), ["a/b:1", "c"]);
    }
}
