//! Images: building them from their folders, listing them, checking that they work.
//!
//! A folder `images/<name>/` holds a `Dockerfile` that knows nothing of Sandhog and an `image.toml`, its contract.
//! The build runs the Dockerfile, then adds one last stage with the runner, the harness and the contract as a label.
//! It refuses to fetch an image from a registry: the base is made here from Debian's packages.

mod base;
mod build;
mod check;
mod context;
mod error;
mod list;
mod plan;
mod source;

pub use build::{BuildEvent, BuildOptions, Built, build, build_from};
pub use check::{CheckReport, check};
pub use error::ImageError;
pub use list::{ImageSummary, list};
pub use source::{ImageSources, contracts};
