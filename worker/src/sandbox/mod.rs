//! Sandboxes: containers that run jobs, one at a time, through the runner inside them.
//!
//! The worker holds one [`Sandboxes`] handle, which [`connect`] makes from the settings. It finds
//! an image ([`Sandboxes::resolve`]) and starts a [`Sandbox`] from it ([`Sandboxes::start`]). A
//! sandbox runs programs ([`Sandbox::run`]) until it is destroyed. Everything that a job sends or
//! prints travels through the streams of its runner; the container's configuration holds no data
//! of a job.
//!
//! Behind the handle is a provider. The submodule [`docker`] is the only code that uses Docker: no
//! type of Docker's client appears outside of it. The submodule [`keepers`] uses keepers that
//! another program has started, and `docker` uses its connections for keepers that the worker
//! starts. Another provider implements [`SandboxProvider`] and [`ImageStore`], passes any pair of
//! byte streams to [`open_sandbox`], and is chosen in `connect.rs`. If it can build images, it
//! implements [`ImageBuilder`] too. The suite `tests/sandbox/conformance/` states what the worker
//! requires of each provider.
//!
//! This module does not decide the outcome of a job. A [`Report`] says what happened in the cell; a
//! [`SandboxError`] means that the worker does not know what happened. After any error the sandbox
//! must be destroyed.

mod background_tasks;
mod caps;
mod connect;
mod container;
pub mod docker;
mod engine_facts;
mod error;
mod handshake;
mod hint;
mod image;
mod image_builder;
mod image_cache;
pub mod keepers;
mod model_server;
mod open_sandbox;
mod provider;
mod run;
mod runner_connection;
mod sandbox;
mod sandbox_owner;
mod sandbox_source;
mod sandboxes;
mod shape;
mod shape_policy;

pub use background_tasks::BackgroundTasks;
pub(crate) use caps::{caps, display_caps};
pub use connect::connect;
pub use container::{Container, ContainerResource};
pub use engine_facts::EngineFacts;
pub use error::{Cause, KeeperProtocol, KeeperRefusal, SandboxError};
pub use image::{Digest, Image, StoredImage};
pub(crate) use image::{is_short, reference};
pub use image_builder::{BuildRecipe, BuildResult, ImageBuilder, LabelledImage, LineReceiver};
pub use model_server::{ModelReader, ModelServerEvent, ModelWriter};
pub use open_sandbox::open_sandbox;
pub use provider::{ImageStore, ProviderParts, SandboxProvider};
pub use run::{Report, Run, RunCaps};
pub use sandbox::{Cleanup, InferChannels, Output, Sandbox};
pub use sandbox_owner::SandboxOwner;
pub use sandbox_source::SandboxSource;
pub use sandboxes::Sandboxes;
pub use shape::{CONTAINER_MEMORY, Shape};
