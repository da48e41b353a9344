//! Images: building them from their folders, listing them, checking that they work.
//!
//! A folder `images/<name>/` holds a `Dockerfile` that knows nothing of Sandhog and an
//! `image.toml`, its contract. The build runs the Dockerfile, adds the Python packages of the
//! contract, then one last stage with the runner, the harness and the contract as a label. An image
//! that extends another one may do without a Dockerfile. It refuses to fetch an image from a
//! registry: the base is made here from Debian's packages.

mod base;
mod build;
mod check;
mod context;
mod error;
mod installed;
mod list;
mod packages_stage;
mod plan;
mod source;

pub use build::{BuildEvent, BuildOptions, Built, build, build_from};
pub use check::{CheckReport, check, check_model, check_size};
pub use error::ImageError;
pub use installed::packages;
pub use list::{ImageSummary, list};
pub use source::{ImageSources, contracts};
