//! Why an image could not be built or checked.

use std::io;
use std::path::PathBuf;

use sandhog_common::id::ImageName;
use sandhog_common::image::ContractError;
use sandhog_common::units::ByteCount;

use crate::sandbox::SandboxError;

/// Why an image could not be built, listed or checked.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// There is no folder of images.
    #[error("no folder of images (looked at {looked})")]
    NoFolder {
        /// Where it was looked for.
        looked: String,
    },
    /// The folder has no image of that name.
    #[error("no image {name} in {} (there are: {known})", dir.display())]
    UnknownFolder {
        /// The name asked for.
        name: ImageName,
        /// The folder.
        dir: PathBuf,
        /// Those it has.
        known: String,
    },
    /// A folder with a recipe and without a contract.
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
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An `image.toml` that cannot be used.
    #[error("{} cannot be used", path.display())]
    Contract {
        /// The file.
        path: PathBuf,
        /// Why.
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
    /// There is no runner to bake in.
    #[error("no runner to bake into images (looked at {looked})")]
    NoRunner {
        /// Where it was looked for.
        looked: String,
    },
    /// The runner would not start in an image, because it needs libraries.
    #[error("{} is not a static Linux program", path.display())]
    RunnerNotStatic {
        /// The file.
        path: PathBuf,
    },
    /// The base image could not be made from packages.
    #[error("the base image could not be made: {detail}")]
    Base {
        /// What happened, with the end of what the tool wrote.
        detail: String,
        /// Whether the tool is not installed.
        missing_tool: bool,
    },
    /// A step of the Dockerfile failed.
    #[error("building image {name} failed: {detail}")]
    Build {
        /// The image.
        name: ImageName,
        /// What the engine said, with the end of the output.
        detail: String,
    },
    /// The image's own check program did not succeed.
    #[error("image {name} fails its check: {detail}")]
    Check {
        /// The image.
        name: ImageName,
        /// How it ended and what it printed.
        detail: String,
    },
    /// The image's model does not load.
    #[error("image {name} does not load its model: {detail}")]
    Model {
        /// The image.
        name: ImageName,
        /// Why, with the end of what its server printed.
        detail: String,
    },
    /// The image's jobs get more memory than a container here has.
    #[error(
        "image {name} gives its jobs {wanted} of memory (limits.memory), and one container here has {most} (sandbox.memory): none of them can run"
    )]
    TooLarge {
        /// The image.
        name: ImageName,
        /// The memory of a job that asks for none.
        wanted: ByteCount,
        /// The memory of a container.
        most: ByteCount,
    },
    /// The engine or a sandbox failed.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
}

impl ImageError {
    /// What a person can do about it.
    #[must_use]
    pub const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoFolder { .. } => Some(
                "set SANDHOG_SANDBOX_IMAGES_DIR to the folder that holds the images' folders, or name one folder: `sandhog images build PATH`",
            ),
            Self::UnknownFolder { .. } => Some(
                "`sandhog images build ./PATH` builds the folder at a path; SANDHOG_SANDBOX_IMAGES_DIR names another folder of images",
            ),
            Self::NoContract { .. } => Some(
                "images/README.md has an image.toml to begin with: contract, name, summary, language and one [languages.…] table",
            ),
            Self::OtherName { .. } => Some("give the folder and `name` in its image.toml one name"),
            Self::NoRunner { .. } | Self::RunnerNotStatic { .. } => {
                Some("build it with `scripts/build`, or set sandbox.runner")
            }
            Self::Base {
                missing_tool: true, ..
            } => Some("apt-get install mmdebstrap debian-archive-keyring"),
            Self::Base { .. } => Some("are Debian's package mirrors within reach?"),
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
