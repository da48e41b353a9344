//! Everything on one machine, with nothing set up before: a private Redis, the images, a worker.
//!
//! `sandhog up` keeps its data in the state directory ([`StateDir`]); `sandhog run` uses a temporary folder and
//! leaves nothing behind. It refuses a second instance on one state directory, and opens no network port for Redis:
//! the server listens on a socket in a folder that only this user can enter.

mod error;
mod guard;
mod images;
mod redis;
mod state;

pub(crate) use error::EmbeddedError;
pub(crate) use guard::become_server;
pub(crate) use images::{connect_engine, ensure_images, show};
pub(crate) use redis::{Keep, PrivateRedis};
pub(crate) use state::{Running, StateDir, StateLock};
