//! Settings: defaults, then files, then `SANDHOG_…` variables, then flags.
//!
//! This crate is the only reader of the environment ([`Environment`]). [`load`] reports every
//! problem at once, each with its key, its value and the origin of that value. Unknown keys are
//! problems too. Passwords are never shown. The module opens only settings files and secret files.

mod check;
mod dir;
mod environment;
mod gpu;
mod key;
mod layer;
mod load;
pub mod logging;
mod mask;
mod problem;
mod redis_url;
mod reuse;
mod sandbox_unit;
mod settings;
#[cfg(test)]
mod tests;
mod warm_count;

pub use dir::{images_dir, socket_dirs, state_dir};
pub use environment::{Environment, program_dir};
pub use gpu::{Attach, GpuChoice, GpuChoiceError};
pub use key::{KeyInfo, keys};
pub use layer::Flag;
pub use load::{Loaded, SettingEntry, Sources, load};
pub use mask::mask_url;
pub use problem::{ConfigError, Problem};
pub use redis_url::{NodeUrl, RedisUrl, Topology};
pub use reuse::Reuse;
pub use sandbox_unit::SandboxUnit;
pub use settings::{
    GpuSettings, KEEPERS_SCHEME, LogSettings, NO_ENGINE, PoolSettings, RedisSettings,
    SandboxSettings, Settings, StateSettings, TelemetrySettings, WorkerSettings,
};
pub use warm_count::{WarmCount, WarmCountError};
