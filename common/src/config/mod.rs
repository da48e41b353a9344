//! Settings: defaults, then files, then `SANDHOG_…` variables, then flags.
//!
//! This module is the only reader of the environment ([`Environment`]). [`load`] reports every
//! problem at once, each with its key, its value and the origin of that value. Unknown keys are
//! problems too. Passwords are never shown. The module opens only settings files and secret files.

mod check;
mod environment;
mod gpu;
mod key;
mod layer;
mod load;
mod mask;
mod paths;
mod pool;
mod problem;
mod redis_url;
mod settings;
#[cfg(test)]
mod tests;

pub use environment::{Environment, program_dir};
pub use gpu::{Attach, GpuChoice, GpuChoiceError};
pub use key::{KeyInfo, keys};
pub use layer::Flag;
pub use load::{Entry, Loaded, Sources, load};
pub use mask::mask_url;
pub use paths::{images_dir, runner_path, state_dir};
pub use pool::{Reuse, Warm, WarmError};
pub(crate) use problem::nearest;
pub use problem::{ConfigError, Problem};
pub(crate) use redis_url::{NodeUrl, RedisUrl, Topology};
pub use settings::{
    GpuSettings, LogSettings, NO_ENGINE, PoolSettings, RedisSettings, SandboxSettings, Settings,
    StateSettings, TelemetrySettings, WorkerSettings,
};
