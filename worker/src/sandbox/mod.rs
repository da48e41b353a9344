//! Sandboxes: containers that run jobs, one at a time, through the runner inside them.
//!
//! This module is the only owner of Docker: no other module talks to the container engine, and no
//! type of the engine's client appears in its public interface. An [`Engine`] finds an image
//! ([`Engine::resolve`]) and starts a [`Sandbox`] from it ([`Engine::start`]). A sandbox runs
//! programs ([`Sandbox::run`]) until it is destroyed. Everything that a job sends or prints travels
//! through the attached streams; the container's configuration holds no data of a job.
//!
//! This module does not decide the outcome of a job. A [`Report`](sandhog_runner::protocol::Report)
//! says what happened in the cell; a [`SandboxError`] means that the worker does not know what
//! happened. After any error the sandbox must be destroyed.

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
