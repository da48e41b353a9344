//! Sandboxes: containers that run jobs, one at a time, through the runner inside them.
//!
//! This module is the one owner of Docker: it alone speaks to the container engine, and no type of the engine's
//! client leaves it. An [`Engine`] finds an image ([`Engine::resolve`]), starts a [`Sandbox`] from it
//! ([`Engine::start`]), and a sandbox runs programs ([`Sandbox::run`]) until it is destroyed. Whatever a job sends
//! or prints travels through the attached streams; nothing of it is in the container's configuration.
//!
//! It refuses to judge: a [`Report`](sandhog_runner::protocol::Report) says what happened in the cell, an
//! [`SandboxError`] says that we do not know. After any error a sandbox must be destroyed.

mod bounds;
mod container;
mod conversation;
mod engine;
mod error;
mod image;
mod reap;
mod run;
mod serving;
mod shape;
mod spec;
mod store;

pub(crate) use bounds::{caps, displays};
pub use container::Held;
pub use engine::{Engine, EngineFacts};
pub use error::{Cause, SandboxError};
pub(crate) use image::reference;
pub use image::{Digest, Image};
pub use reap::ContainerInfo;
pub use run::{Cleared, Desk, Output, Sandbox};
pub use serving::{Heard, ServerEar, ServerMouth};
pub use shape::{CONTAINER_MEMORY, Shape};
pub(crate) use store::{Ran, Recipe, Stored};
