//! Sources of images: the folder that holds the images' folders, and the runner to add to images.

use std::io::Read;
use std::path::{Path, PathBuf};

use sandhog_config::SandboxSettings;
use sandhog_core::id::ImageName;
use sandhog_core::image::{ImageContract, extends};

use super::ImageError;

/// Name of the contract file in an image's folder.
const CONTRACT_FILE: &str = "image.toml";

/// Name of the Dockerfile in an image's folder.
pub(super) const DOCKERFILE: &str = "Dockerfile";

/// Name of the runner's file beside this program.
const RUNNER_FILE: &str = "sandhog-runner";

/// Number of levels above this program at which the checkout is searched.
const LEVELS_UP: usize = 5;

/// The files that images are built from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSources {
    /// The folder that holds one folder for each image.
    pub dir: PathBuf,
    /// The runner's file.
    pub runner: PathBuf,
}

/// An image and those that it extends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lineage {
    /// The images that have a folder: the image itself, then the one it extends, and so on.
    pub(super) folders: Vec<ImageName>,
    /// The image that the last of `folders` extends, if that image has no folder here.
    pub(super) outside: Option<ImageName>,
}

impl Lineage {
    /// Returns the image that the first one extends.
    pub(super) fn parent(&self) -> Option<&ImageName> {
        self.folders.get(1).or(self.outside.as_ref())
    }
}

impl ImageSources {
    /// Finds both: the configured paths, else beside this program, else in the checkout that this
    /// program was built in.
    ///
    /// # Errors
    /// If one of them is not found; the error lists the places that were searched.
    pub fn find(settings: &SandboxSettings) -> Result<Self, ImageError> {
        let program = std::env::current_exe().unwrap_or_default();
        Ok(Self {
            dir: find_dir(settings, &program)?,
            runner: find_runner(settings, &program)?,
        })
    }

    /// Finds one image by the path of its folder. Returns the sources and the image's name, which
    /// is the folder's name.
    ///
    /// # Errors
    /// If the path is not a folder with a valid image name, or the runner is not found.
    pub fn of_folder(
        settings: &SandboxSettings,
        folder: &Path,
    ) -> Result<(Self, ImageName), ImageError> {
        let unreadable = |source| ImageError::Read {
            path: folder.to_path_buf(),
            source,
        };
        let real = folder.canonicalize().map_err(unreadable)?;
        if !real.is_dir() {
            return Err(unreadable(std::io::ErrorKind::NotADirectory.into()));
        }
        let name = real.file_name().and_then(std::ffi::OsStr::to_str);
        let name = name
            .and_then(|name| name.parse().ok())
            .ok_or_else(|| unreadable(std::io::ErrorKind::InvalidFilename.into()))?;
        let program = std::env::current_exe().unwrap_or_default();
        let sources = Self {
            dir: real.parent().unwrap_or(&real).to_path_buf(),
            runner: find_runner(settings, &program)?,
        };
        Ok((sources, name))
    }

    /// Returns the images that have a folder, sorted.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn names(&self) -> Result<Vec<ImageName>, ImageError> {
        names_in(&self.dir)
    }

    /// Returns the contract in an image's folder. The images that it extends must have folders too.
    ///
    /// # Errors
    /// If there is no such folder, or its contract is not valid.
    pub fn contract(&self, name: &ImageName) -> Result<ImageContract, ImageError> {
        self.contract_of(&self.lineage(name)?, None)
    }

    /// Returns the image and those that it extends, as their folders say.
    ///
    /// # Errors
    /// If there is no such folder, an `image.toml` is not valid TOML, or images extend each other.
    pub(super) fn lineage(&self, name: &ImageName) -> Result<Lineage, ImageError> {
        let mut folders = vec![name.clone()];
        let mut text = self.text(name)?;
        loop {
            let child = folders.last().unwrap_or(name);
            let path = self.contract_path(child);
            let parent = match extends(&text) {
                Ok(Some(parent)) => parent,
                Ok(None) => break,
                Err(source) => return Err(ImageError::Contract { path, source }),
            };
            if folders.contains(&parent) {
                return Err(ImageError::Circle { path, parent });
            }
            if !self.contract_path(&parent).is_file() {
                return Ok(Lineage {
                    folders,
                    outside: Some(parent),
                });
            }
            text = self.text(&parent)?;
            folders.push(parent);
        }
        Ok(Lineage {
            folders,
            outside: None,
        })
    }

    /// Returns the contract of a lineage's first image. `outside` is the contract of the image
    /// without a folder.
    pub(super) fn contract_of(
        &self,
        lineage: &Lineage,
        outside: Option<ImageContract>,
    ) -> Result<ImageContract, ImageError> {
        let mut found = outside;
        if let (Some(parent), None) = (&lineage.outside, &found) {
            return Err(ImageError::NoParent {
                name: lineage.folders.last().unwrap_or(parent).clone(),
                parent: parent.clone(),
                dir: self.dir.clone(),
            });
        }
        for name in lineage.folders.iter().rev() {
            let path = self.contract_path(name);
            let text = self.text(name)?;
            let read = match &found {
                Some(parent) => ImageContract::from_toml_extending(&text, parent),
                None => ImageContract::from_toml(&text),
            };
            let contract = match read {
                Ok(contract) => contract,
                Err(source) => return Err(ImageError::Contract { path, source }),
            };
            if contract.name != *name {
                return Err(ImageError::OtherName {
                    path,
                    found: contract.name,
                    folder: name.clone(),
                });
            }
            found = Some(contract);
        }
        found.ok_or_else(|| ImageError::NoFolder {
            looked: self.dir.display().to_string(),
        })
    }

    fn contract_path(&self, name: &ImageName) -> PathBuf {
        self.folder(name).join(CONTRACT_FILE)
    }

    /// Returns the text of an image's `image.toml`.
    fn text(&self, name: &ImageName) -> Result<String, ImageError> {
        let path = self.contract_path(name);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let folder = self.folder(name);
                if folder.join(DOCKERFILE).is_file() {
                    return Err(ImageError::NoContract { folder });
                }
                let known = self.names()?;
                Err(ImageError::UnknownFolder {
                    name: name.clone(),
                    dir: self.dir.clone(),
                    known: known
                        .iter()
                        .map(ImageName::as_str)
                        .collect::<Vec<_>>()
                        .join(", "),
                })
            }
            Err(source) => Err(ImageError::Read { path, source }),
        }
    }

    /// Returns an image's folder.
    #[must_use]
    pub fn folder(&self, name: &ImageName) -> PathBuf {
        self.dir.join(name.as_str())
    }

    /// Returns the runner's bytes, if the runner can run in any image.
    ///
    /// # Errors
    /// If the file cannot be read or is not statically linked.
    pub fn runner_bytes(&self) -> Result<Vec<u8>, ImageError> {
        let mut bytes = Vec::new();
        std::fs::File::open(&self.runner)
            .and_then(|mut file| file.read_to_end(&mut bytes))
            .map_err(|source| ImageError::Read {
                path: self.runner.clone(),
                source,
            })?;
        if is_static(&bytes) {
            Ok(bytes)
        } else {
            Err(ImageError::RunnerNotStatic {
                path: self.runner.clone(),
            })
        }
    }
}

/// Returns the contracts of all images that have a folder, sorted by name. It skips invalid
/// contracts, and returns none if there is no folder of images: the result is for choosing among
/// the available images.
#[must_use]
pub fn contracts(settings: &SandboxSettings) -> Vec<ImageContract> {
    let program = std::env::current_exe().unwrap_or_default();
    let Ok(dir) = find_dir(settings, &program) else {
        return Vec::new();
    };
    let names = names_in(&dir).unwrap_or_default();
    names
        .iter()
        .filter_map(|name| {
            let text = std::fs::read_to_string(dir.join(name.as_str()).join(CONTRACT_FILE)).ok()?;
            ImageContract::from_toml(&text).ok()
        })
        .collect()
}

fn find_dir(settings: &SandboxSettings, program: &Path) -> Result<PathBuf, ImageError> {
    let mut candidates = Vec::new();
    if let Some(set) = &settings.images_dir {
        candidates.push(set.clone());
    } else {
        candidates.extend(
            program
                .ancestors()
                .nth(2)
                .map(|prefix| prefix.join("share/sandhog/images")),
        );
        candidates.extend(
            program
                .ancestors()
                .skip(1)
                .take(LEVELS_UP)
                .map(|above| above.join("images")),
        );
    }
    let found = candidates
        .iter()
        .find(|dir| names_in(dir).is_ok_and(|names| !names.is_empty()));
    match found {
        Some(dir) => Ok(dir.clone()),
        None => Err(ImageError::NoFolder {
            looked: listed(&candidates),
        }),
    }
}

fn find_runner(settings: &SandboxSettings, program: &Path) -> Result<PathBuf, ImageError> {
    let candidates = match &settings.runner {
        Some(set) => vec![set.clone()],
        // Test programs are one level below the other programs of their build.
        None => program
            .ancestors()
            .skip(1)
            .take(2)
            .map(|beside| beside.join(RUNNER_FILE))
            .collect(),
    };
    match candidates.iter().find(|path| path.is_file()) {
        Some(path) => Ok(path.clone()),
        None => Err(ImageError::NoRunner {
            looked: listed(&candidates),
        }),
    }
}

fn listed(paths: &[PathBuf]) -> String {
    paths
        .iter()
        .map(|path| path.display().to_string())
        .collect::<Vec<_>>()
        .join(", ")
}

/// Returns the folders that have a contract and a valid image name.
fn names_in(dir: &Path) -> Result<Vec<ImageName>, ImageError> {
    let unreadable = |source| ImageError::Read {
        path: dir.to_path_buf(),
        source,
    };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        if let Some(name) = entry.file_name().to_str()
            && let Ok(name) = name.parse::<ImageName>()
            && entry.path().join(CONTRACT_FILE).is_file()
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Returns whether `bytes` are a 64-bit Linux program without an ELF interpreter, so that it runs
/// in an image that has no C library.
fn is_static(bytes: &[u8]) -> bool {
    const INTERPRETER: u32 = 3;
    let number = |at: usize, width: usize| -> Option<usize> {
        let field = bytes.get(at..at.checked_add(width)?)?;
        field.iter().rev().try_fold(0_usize, |sum, byte| {
            sum.checked_mul(256)?.checked_add(usize::from(*byte))
        })
    };
    let headers = || -> Option<bool> {
        let (start, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
        for header in 0..count {
            let kind = number(start.checked_add(header.checked_mul(size)?)?, 4)?;
            if u32::try_from(kind) == Ok(INTERPRETER) {
                return Some(false);
            }
        }
        Some(count > 0)
    };
    bytes.starts_with(b"\x7fELF\x02\x01") && headers().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a program with one program header of the given kind.
    fn program(kind: u8) -> Vec<u8> {
        let mut bytes = vec![0; 64 + 56];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[32] = 64;
        bytes[54] = 56;
        bytes[56] = 1;
        bytes[64] = kind;
        bytes
    }

    #[test]
    fn only_static_programs_may_be_runners() {
        for (case, bytes, want) in [
            ("static", program(1), true),
            ("needs an interpreter", program(3), false),
            ("cut off", program(1)[..60].to_vec(), false),
            ("a script", b"#!/bin/sh\n".to_vec(), false),
            ("empty", Vec::new(), false),
        ] {
            assert_eq!(is_static(&bytes), want, "case {case}");
        }
    }

    /// Creates a folder of images with these files, and settings that use one of the files as the
    /// runner.
    fn sources(files: &[(&str, &str)]) -> (tempfile::TempDir, SandboxSettings) {
        let top = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = top.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let settings = SandboxSettings {
            images_dir: Some(top.path().join("images")),
            runner: Some(top.path().join("images/geo/image.toml")),
            ..SandboxSettings::default()
        };
        (top, settings)
    }

    #[test]
    fn a_folder_that_is_no_image_is_told_with_what_it_lacks() {
        let contract = concat!(
            "contract = 1\nname = \"geo\"\nsummary = \"\"\nlanguage = \"x\"\n",
            "[languages.x]\nstyle = \"file\"\nfile = \"a\"\nargv = [\"/x\"]\n",
        );
        let (top, settings) = sources(&[
            ("images/geo/image.toml", contract),
            ("images/bad/Dockerfile", "FROM scratch"),
        ]);
        let dir = top.path().join("images").display().to_string();
        let sources = ImageSources::find(&settings).unwrap();
        let error = |name: &str| sources.contract(&name.parse().unwrap()).unwrap_err();
        let bad = error("bad");
        assert_eq!(
            bad.to_string(),
            format!("{dir}/bad has a Dockerfile, but no image.toml, the image's contract")
        );
        assert!(bad.hint().is_some());
        let missing = error("goe");
        assert_eq!(
            missing.to_string(),
            format!("no image goe in {dir} (there are: geo)")
        );
        assert!(
            missing
                .hint()
                .is_some_and(|hint| hint.contains("SANDHOG_SANDBOX_IMAGES_DIR"))
        );
    }

    #[test]
    fn an_image_is_found_by_the_path_of_its_folder() {
        let contract = concat!(
            "contract = 1\nname = \"mine\"\nsummary = \"\"\nlanguage = \"x\"\n",
            "[languages.x]\nstyle = \"file\"\nfile = \"a\"\nargv = [\"/x\"]\n",
        );
        let (top, settings) = sources(&[
            ("images/geo/image.toml", contract),
            ("elsewhere/mine/image.toml", contract),
            ("elsewhere/a b/image.toml", contract),
        ]);
        let of = |path: &str| ImageSources::of_folder(&settings, &top.path().join(path));
        let (sources, name) = of("elsewhere/mine").unwrap();
        assert_eq!(name.as_str(), "mine");
        assert_eq!(sources.contract(&name).unwrap().name, name);
        for (case, path) in [
            ("nothing", "elsewhere/absent"),
            ("a file", "elsewhere/mine/image.toml"),
            ("no name of an image", "elsewhere/a b"),
        ] {
            assert!(of(path).is_err(), "case {case}");
        }
    }

    #[test]
    fn what_is_set_is_all_that_is_looked_at() {
        let settings = SandboxSettings {
            images_dir: Some("/nowhere/images".into()),
            runner: Some("/nowhere/runner".into()),
            ..SandboxSettings::default()
        };
        let error = ImageSources::find(&settings).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no folder of images (looked at /nowhere/images)"
        );
        assert!(error.hint().is_some());
    }
}
