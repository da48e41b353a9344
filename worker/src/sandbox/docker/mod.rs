//! Sandboxes in containers of Docker. This module is the only one that uses Docker's client.
//!
//! An [`Engine`] makes a container for each sandbox. [`KeeperContainers`] makes a container for
//! each image, in which a keeper makes the sandboxes.

mod attach;
mod bind_mount;
mod container_info;
mod container_spec;
mod engine;
mod engine_facts;
mod image_builder;
mod keeper_container;
mod keeper_containers;
mod labels;
mod look_up;
mod oom;
mod provider;
mod reap;
mod socket_dir;
mod start;
mod store;

pub use container_info::ContainerInfo;
pub use engine::Engine;
pub use keeper_containers::KeeperContainers;
