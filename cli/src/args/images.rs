//! Arguments of `sandhog images`.

use clap::{Args, Subcommand};
use sandhog_core::id::ImageName;

/// `sandhog images`.
#[derive(Debug, Subcommand)]
pub(crate) enum ImagesCommand {
    /// Build images that are missing or out of date
    Build(ImagesBuildArgs),
    /// List the images, built and not built
    List(ImagesListArgs),
    /// Run the check of each image in a real sandbox
    Check(ImageNames),
}

/// `sandhog images list`.
#[derive(Debug, Args)]
pub(crate) struct ImagesListArgs {
    /// The names of the images.
    #[command(flatten)]
    pub(crate) names: ImageNames,
    /// List the Python packages of each image instead, as a sandbox of the image sees them
    #[arg(long)]
    pub(crate) packages: bool,
}

/// `sandhog images build`.
#[derive(Debug, Args)]
pub(crate) struct ImagesBuildArgs {
    /// Names of images, or paths of their folders, such as ./geo [default: all images in
    /// sandbox.images_dir]
    #[arg(value_name = "NAME|PATH")]
    pub(crate) images: Vec<String>,
    /// Also rebuild images that are up to date
    #[arg(long)]
    pub(crate) force: bool,
    /// Show everything the build prints
    #[arg(long, short)]
    pub(crate) verbose: bool,
}

/// The names of the images.
#[derive(Debug, Args)]
pub(crate) struct ImageNames {
    /// Names of images [default: all]
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<ImageName>,
}
