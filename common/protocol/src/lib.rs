//! The frames between the worker and the runner or the keeper, and the layout of an image.
//!
//! Both sides use this crate. It depends on no async runtime, on no Redis and on no Docker, so that
//! the runner stays small.

pub mod frames;
pub mod framing;
pub mod install;
pub mod keeper;
pub mod model;
pub mod pattern;
