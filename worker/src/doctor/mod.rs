//! Diagnosis of the machine: Redis, the container engine or the keepers, the images, the features
//! of their sandboxes, the GPUs, and the limits of the whole machine.
//!
//! The doctor only reads and reports. It repairs nothing, and starts only one sandbox for each
//! image, which it removes.

mod finding;
mod gpu;
mod keepers;
mod machine_limits;
mod redis;
mod sandboxes;

pub use finding::{Finding, Severity};
pub(crate) use machine_limits::warn_of_low_limits;
pub use redis::check_redis;
pub use sandboxes::check_sandboxes;
