//! Images: building them from their folders, listing them, and checking that they work.
//!
//! A folder `images/<name>/` holds a `Dockerfile`, which is independent of Sandhog, and an
//! `image.toml`, its contract. The build runs the Dockerfile, adds the Python packages of the
//! contract, and then runs one last stage that adds the runner, the harness and the contract as a
//! label. An image that extends another one needs no Dockerfile. No image is pulled from a
//! registry: the base is built locally from Debian's packages.

mod base;
mod build;
mod check;
mod context;
mod error;
mod event;
mod list;
mod output_tail;
mod packages;
mod packages_stage;
mod plan;
mod runner_files;
mod source;

pub use build::{BuildOptions, build, build_from};
pub use check::{CheckReport, check, check_model, check_size};
pub use error::ImageError;
pub use event::{BuildEvent, BuiltImage};
pub use list::{ImageSummary, list};
pub use packages::packages;
pub use source::{ImageSources, contracts};
