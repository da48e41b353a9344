//! A private Redis and the images for a worker on this machine, without any set-up before.
//!
//! `sandhog up` keeps its data in the state directory ([`StateDir`]). Only one instance can use a
//! state directory at a time. `sandhog run` uses a temporary folder and leaves nothing behind. The
//! private Redis opens no network port; it listens on a socket in a folder that only this user can
//! enter.

mod error;
mod guard;
mod images;
mod redis;
mod state;

pub(crate) use error::EmbeddedError;
pub(crate) use guard::become_guarded_server;
pub(crate) use images::{connect_engine, ensure_images, show};
pub(crate) use redis::{EmbeddedRedis, Persistence};
pub(crate) use state::{InstanceRecord, StateDir, StateLock};
