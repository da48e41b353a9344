//! Errors of building, listing and checking images.

use std::io;
use std::path::PathBuf;

use sandhog_core::id::ImageName;
use sandhog_core::image::ContractError;
use sandhog_core::units::ByteCount;

use crate::sandbox::SandboxError;

/// Reason why an image could not be built, listed or checked.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// There is no folder of images.
    #[error("no folder of images (looked at {looked})")]
    NoFolder {
        /// The paths that were searched.
        looked: String,
    },
    /// The folder has no image of that name.
    #[error("no image {name} in {} (there are: {known})", dir.display())]
    UnknownFolder {
        /// The name asked for.
        name: ImageName,
        /// The folder.
        dir: PathBuf,
        /// The images that it has.
        known: String,
    },
    /// A folder with a Dockerfile and without a contract.
    #[error("{} has a Dockerfile, but no image.toml, the image's contract", folder.display())]
    NoContract {
        /// The folder.
        folder: PathBuf,
    },
    /// A file could not be read.
    #[error("could not read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        source: io::Error,
    },
    /// An `image.toml` that is not valid.
    #[error("{} cannot be used", path.display())]
    Contract {
        /// The file.
        path: PathBuf,
        /// The defect.
        #[source]
        source: ContractError,
    },
    /// An `image.toml` that names another image than its folder.
    #[error("{} names image {found}, but its folder is {folder}", path.display())]
    OtherName {
        /// The file.
        path: PathBuf,
        /// The name in it.
        found: ImageName,
        /// The folder's name.
        folder: ImageName,
    },
    /// An image extends one that has no folder here and is not built.
    #[error(
        "image {name} extends {parent}, which has no folder in {} and is not built",
        dir.display()
    )]
    NoParent {
        /// The image.
        name: ImageName,
        /// The image that it extends.
        parent: ImageName,
        /// The folder of images.
        dir: PathBuf,
    },
    /// Images that extend each other.
    #[error("{} extends {parent}, which extends it", path.display())]
    Circle {
        /// The file.
        path: PathBuf,
        /// The image that it extends.
        parent: ImageName,
    },
    /// There is no runner to add to images.
    #[error("no runner to bake into images (looked at {looked})")]
    NoRunner {
        /// The paths that were searched.
        looked: String,
    },
    /// The runner is not static and would not start in an image.
    #[error("{} is not a static Linux program", path.display())]
    RunnerNotStatic {
        /// The file.
        path: PathBuf,
    },
    /// The base image could not be made from packages.
    #[error("the base image could not be made: {detail}")]
    Base {
        /// The failure, with the last lines of the tool's output.
        detail: String,
        /// True if the tool is not installed.
        missing_tool: bool,
    },
    /// A step of the Dockerfile failed.
    #[error("building image {name} failed: {detail}")]
    Build {
        /// The image.
        name: ImageName,
        /// The engine's message, with the last lines of the output.
        detail: String,
    },
    /// The image's own check program did not succeed.
    #[error("image {name} fails its check: {detail}")]
    Check {
        /// The image.
        name: ImageName,
        /// The result of the program and its output.
        detail: String,
    },
    /// The image's model did not load.
    #[error("image {name} does not load its model: {detail}")]
    Model {
        /// The image.
        name: ImageName,
        /// The reason, with the last lines that its server printed.
        detail: String,
    },
    /// The image's default memory limit is above the memory of a container of this worker.
    #[error(
        "image {name} gives its jobs {wanted} of memory (limits.memory), but a container of this \
         worker has {most} (sandbox.memory): its jobs cannot run"
    )]
    TooLarge {
        /// The image.
        name: ImageName,
        /// The memory of a job that states no limit.
        wanted: ByteCount,
        /// The memory of a container.
        most: ByteCount,
    },
    /// The engine or a sandbox failed.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
}

impl ImageError {
    /// Returns advice for the operator.
    #[must_use]
    pub const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoFolder { .. } => Some(
                "set SANDHOG_SANDBOX_IMAGES_DIR to the folder that holds the images' folders, or \
                 name one folder: `sandhog images build PATH`",
            ),
            Self::UnknownFolder { .. } => Some(
                "`sandhog images build ./PATH` builds the folder at a path; \
                 SANDHOG_SANDBOX_IMAGES_DIR names another folder of images",
            ),
            Self::NoContract { .. } => Some(
                "images/README.md has an image.toml to begin with: contract, name, summary, \
                 language and one [languages.…] table",
            ),
            Self::OtherName { .. } => {
                Some("use the same name for the folder and for `name` in its image.toml")
            }
            Self::NoRunner { .. } | Self::RunnerNotStatic { .. } => {
                Some("build it with `scripts/build`, or set sandbox.runner")
            }
            Self::Base {
                missing_tool: true, ..
            } => Some("apt-get install mmdebstrap debian-archive-keyring"),
            Self::Base { .. } => Some("check that Debian's package mirrors can be reached"),
            Self::NoParent { .. } => Some("build the parent first: `sandhog images build PARENT`"),
            Self::Build { .. } => Some("run again with --verbose to see every step"),
            Self::TooLarge { .. } => {
                Some("raise sandbox.memory, or lower limits.memory in the image.toml")
            }
            Self::Sandbox(error) => error.hint(),
            Self::Circle { .. }
            | Self::Read { .. }
            | Self::Contract { .. }
            | Self::Check { .. }
            | Self::Model { .. } => None,
        }
    }
}
