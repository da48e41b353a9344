//! Settings: defaults, then a file, then `SANDHOG_…` variables, then flags.
//!
//! This module is the one reader of the environment. Every setting states its unit, its default and what zero means;
//! every problem is reported at once.

mod settings;

pub use settings::{
    LogSettings, RedisSettings, SandboxSettings, Settings, StateSettings, WorkerSettings,
};
