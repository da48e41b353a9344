//! Sandboxes in containers of Docker. This module is the only one that uses Docker's client.

mod attach;
mod container_spec;
mod engine;
mod engine_facts;
mod image_cache;
mod labels;
mod oom;
mod provider;
mod reap;
mod resolve;
mod start;
mod store;

pub use engine::Engine;
pub(crate) use store::{BuildRecipe, BuildResult};
