//! Sandboxes: containers that run jobs, one at a time, through the runner inside them.
//!
//! The module is independent of the container engine, except for its submodule `docker`, which is
//! the only code that uses Docker: no type of Docker's client appears outside of it. An [`Engine`]
//! finds an image ([`Engine::resolve`]) and starts a [`Sandbox`] from it ([`Engine::start`]). A
//! sandbox runs programs ([`Sandbox::run`]) until it is destroyed. Everything that a job sends or
//! prints travels through the attached streams; the container's configuration holds no data of a
//! job.
//!
//! Another engine implements the traits [`SandboxProvider`] and [`ImageStore`], and connects to its
//! runners through any pair of byte streams.
//!
//! This module does not decide the outcome of a job. A [`Report`](sandhog_protocol::frames::Report)
//! says what happened in the cell; a [`SandboxError`] means that the worker does not know what
//! happened. After any error the sandbox must be destroyed.

mod caps;
mod container;
mod docker;
mod engine_facts;
mod error;
mod handshake;
mod image;
mod model_server;
mod provider;
mod runner_connection;
mod sandbox;
mod shape;
mod shape_policy;

pub(crate) use caps::{caps, display_caps};
pub use container::{ContainerInfo, ContainerResource};
pub use docker::Engine;
pub(crate) use docker::{BuildRecipe, BuildResult};
pub use engine_facts::EngineFacts;
pub use error::{Cause, SandboxError};
pub(crate) use image::reference;
pub use image::{Digest, Image, StoredImage};
pub use model_server::{ModelReader, ModelServerEvent, ModelWriter};
pub use provider::{ImageStore, SandboxProvider};
pub use sandbox::{Cleanup, InferChannels, Output, Sandbox};
pub use shape::{CONTAINER_MEMORY, Shape};
