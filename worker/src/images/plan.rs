//! What building an image means now: its files, what it starts from, and the hash that says whether that was done.

use sandhog_common::config::SandboxSettings;
use sandhog_common::id::ImageName;
use sandhog_common::image::{CONTRACT_LABEL, ImageContract};
use sandhog_runner::{
    INSTALL_DIR, NODE_ASKING, NODE_ASKING_PATH, PYTHON_AHEAD, PYTHON_AHEAD_PATH, PYTHON_ASKING,
    PYTHON_ASKING_PATH, PYTHON_DISPLAYS, PYTHON_DISPLAYS_PATH, PYTHON_FLUSHER, PYTHON_FLUSHER_PATH,
    PYTHON_HARNESS, PYTHON_HARNESS_PATH, PYTHON_MODEL, PYTHON_MODEL_PATH, PYTHON_NO_PIP,
    PYTHON_NO_PIP_PATH, PYTHON_PARTS, PYTHON_STREAMS, PYTHON_STREAMS_PATH, PYTHON_THREADS,
    PYTHON_THREADS_PATH, PYTHON_ZYGOTE, PYTHON_ZYGOTE_PATH, RUNNER_PATH,
};

use super::context::{self, File, Fingerprint};
use super::source::DOCKERFILE;
use super::{ImageError, ImageSources, packages_stage};
use crate::sandbox::{Engine, reference};

/// The label with the hash of everything an image was built from.
pub(super) const BUILD_LABEL: &str = "sandhog.build";

/// Where cells mount their working directory: it must exist, the root is read-only.
const WORKING_DIRECTORY: &str = "work";

/// What a Dockerfile's steps find this machine's certificate authorities as, if there are any: behind a proxy that
/// signs for every site, nothing can be fetched without them. They are no part of the image, so not of its hash.
const AUTHORITIES: &str = "host-certificates.crt";

/// Where distributions keep them.
const AUTHORITY_FILES: [&str; 2] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
];

/// An image as its folder says it should be.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) name: ImageName,
    pub(super) reference: String,
    pub(super) contract: ImageContract,
    /// The folder's files, Dockerfile included.
    files: Vec<File>,
    runner: Vec<u8>,
}

impl Plan {
    /// Reads an image's folder. A folder without a Dockerfile is the image that it extends, with
    /// packages.
    pub(super) async fn read(
        engine: &Engine,
        sources: &ImageSources,
        settings: &SandboxSettings,
        name: &ImageName,
    ) -> Result<Self, ImageError> {
        let lineage = sources.lineage(name)?;
        let outside = match &lineage.outside {
            Some(parent) => Some(built_contract(engine, settings, parent).await?),
            None => None,
        };
        let contract = sources.contract_of(&lineage, outside.flatten())?;
        let folder = sources.folder(name);
        let mut files = context::read(&folder)?;
        if !files.iter().any(|file| file.path == DOCKERFILE) {
            let Some(parent) = lineage.parent() else {
                return Err(ImageError::Read {
                    path: folder.join(DOCKERFILE),
                    source: std::io::ErrorKind::NotFound.into(),
                });
            };
            let parent = reference(&settings.image_reference, parent);
            files.push(File::text(DOCKERFILE, format!("FROM {parent}\n")));
        }
        Ok(Self {
            name: name.clone(),
            reference: reference(&settings.image_reference, name),
            contract,
            files,
            runner: sources.runner_bytes()?,
        })
    }

    /// The images its Dockerfile starts from.
    pub(super) fn starts_from(&self) -> Vec<String> {
        self.files
            .iter()
            .find(|file| file.path == DOCKERFILE)
            .map(|file| froms(&String::from_utf8_lossy(&file.bytes)))
            .unwrap_or_default()
    }

    /// The hash of everything it is made of; none while something it starts from is missing.
    pub(super) async fn fingerprint(&self, engine: &Engine) -> Result<Option<String>, ImageError> {
        let mut sum = Fingerprint::default().files(&self.files);
        for reference in self.starts_from() {
            let Some(there) = engine.stored(&reference).await? else {
                return Ok(None);
            };
            sum = sum.part("from", there.digest.as_str().as_bytes());
        }
        if !self.contract.python.is_empty() {
            sum = sum.files(&packages_stage::files(&self.contract, ""));
        }
        let sum = sum
            .part("contract", self.contract.to_label().as_bytes())
            .part("finish", finishing_dockerfile("").as_bytes())
            .files(&self.finishing_files());
        Ok(Some(sum.finish()))
    }

    /// What the folder's own Dockerfile is run with.
    pub(super) fn context(&self) -> Vec<u8> {
        let mut files = self.files.clone();
        files.extend(authorities());
        context::archive(&[], &files)
    }

    /// The context of the stage with the Python packages, if the contract names any. `from` is the
    /// image that the folder's Dockerfile made.
    pub(super) fn packages_context(&self, from: &str) -> Option<Vec<u8>> {
        if self.contract.python.is_empty() {
            return None;
        }
        let mut files = packages_stage::files(&self.contract, from);
        files.extend(authorities());
        Some(context::archive(&[], &files))
    }

    /// What the last stage is run with: it starts from what the folder's Dockerfile made.
    pub(super) fn finishing_context(&self, from: &str) -> Vec<u8> {
        let mut files = self.finishing_files();
        files.push(File::text(DOCKERFILE, finishing_dockerfile(from)));
        let folders = [
            "root".to_owned(),
            format!("root/{WORKING_DIRECTORY}"),
            "root/usr".to_owned(),
            "root/usr/lib".to_owned(),
            format!("root{INSTALL_DIR}"),
            format!("root{INSTALL_DIR}/cell"),
        ];
        context::archive(&folders.each_ref().map(String::as_str), &files)
    }

    fn finishing_files(&self) -> Vec<File> {
        let mut files = vec![
            File {
                path: format!("root{RUNNER_PATH}"),
                bytes: self.runner.clone(),
                executable: true,
            },
            File::text(&format!("root{PYTHON_HARNESS_PATH}"), PYTHON_HARNESS),
            File::text(&format!("root{PYTHON_ZYGOTE_PATH}"), PYTHON_ZYGOTE),
            File::text(&format!("root{PYTHON_AHEAD_PATH}"), PYTHON_AHEAD),
            File::text(&format!("root{PYTHON_DISPLAYS_PATH}"), PYTHON_DISPLAYS),
            File::text(&format!("root{PYTHON_STREAMS_PATH}"), PYTHON_STREAMS),
            File::text(&format!("root{PYTHON_FLUSHER_PATH}"), PYTHON_FLUSHER),
            File::text(&format!("root{PYTHON_THREADS_PATH}"), PYTHON_THREADS),
            File::text(&format!("root{PYTHON_MODEL_PATH}"), PYTHON_MODEL),
            File {
                path: format!("root{PYTHON_NO_PIP_PATH}"),
                bytes: PYTHON_NO_PIP.into(),
                executable: true,
            },
            File::text(&format!("root{PYTHON_ASKING_PATH}"), PYTHON_ASKING),
            File::text(&format!("root{NODE_ASKING_PATH}"), NODE_ASKING),
        ];
        let parts = PYTHON_PARTS.iter();
        files.extend(parts.map(|(path, text)| File::text(&format!("root{path}"), *text)));
        files
    }
}

/// The file of this machine's certificate authorities, if it has any.
fn authorities() -> Option<File> {
    AUTHORITY_FILES
        .iter()
        .find_map(|path| std::fs::read_to_string(path).ok())
        .map(|text| File::text(AUTHORITIES, text))
}

/// The contract of an image that the engine has; none if it does not have it, or it has no
/// contract.
async fn built_contract(
    engine: &Engine,
    settings: &SandboxSettings,
    name: &ImageName,
) -> Result<Option<ImageContract>, ImageError> {
    let stored = engine
        .stored(&reference(&settings.image_reference, name))
        .await?;
    Ok(stored
        .and_then(|stored| stored.labels.get(CONTRACT_LABEL).cloned())
        .and_then(|label| ImageContract::from_label(&label).ok()))
}

/// Adds the runner to any image. It copies and sets, and runs nothing: the image may have no shell.
fn finishing_dockerfile(from: &str) -> String {
    format!(
        "FROM {from}\nUSER 0:0\nCOPY root/ /\nWORKDIR /\nENTRYPOINT [\"{RUNNER_PATH}\"]\nCMD []\n"
    )
}

/// The images named in `FROM` lines, without those that are earlier stages of the same file or nothing.
fn froms(dockerfile: &str) -> Vec<String> {
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
        let dockerfile = "# FROM nothing\nfrom a/b:1 AS build\nRUN x\nFROM --platform=linux/amd64 c AS d\n\
                          FROM build\nFROM Scratch\nFROM\nCOPY --from=build / /\n";
        assert_eq!(froms(dockerfile), ["a/b:1", "c"]);
    }
}
