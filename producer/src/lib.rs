//! The client library: submit a job, follow it, wait for its result.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use sandhog_config::RedisSettings;
//! use sandhog_core::id::Namespace;
//! use sandhog_core::job::Job;
//! use sandhog_core::submission::Routing;
//! use sandhog_producer::Client;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let settings = RedisSettings {
//!     url: Some("redis://127.0.0.1:6379".into()),
//!     ..RedisSettings::default()
//! };
//! let client = Client::connect(&settings, &Namespace::default()).await?;
//! let job = Job::code("python".parse()?, "print(6 * 7)").check()?;
//! let result = client.run(&job, Routing::default(), Duration::from_secs(60)).await?;
//! assert_eq!(result.stdout.lossy(), "42\n");
//! # Ok(())
//! # }
//! ```
//!
//! docs/guides/rust.md has more examples. For many jobs, [`Client::submit_many`] takes a stream of
//! any length, and [`Client::replies`] waits for any number of results on one connection.
//!
//! The library is a thin layer over [`sandhog_queue`]. It adds three things:
//!
//! - It sends only checked jobs: a [`CheckedJob`](sandhog_core::job::CheckedJob), or the valid jobs
//!   of a stream.
//! - It gives every job an id, so that a submission can be repeated after a broken connection and
//!   the job still runs once.
//! - It continues to wait for a result across a restart of Redis.
//!
//! With the feature `opentelemetry`, a job that names no trace is submitted in the caller's current
//! span. The library runs no jobs; workers do.

mod client;
mod decode;
mod error;
mod follow;
mod inbox;
mod replies;
#[cfg(feature = "opentelemetry")]
mod trace;
mod wait_known;

pub use client::Client;
pub use decode::decode;
pub use error::ClientError;
pub use follow::{Chunk, Follow};
pub use replies::{Pending, Replies};

/// The examples of docs/guides/rust.md, which `cargo test --doc` compiles.
#[cfg(doctest)]
#[doc = include_str!("../../docs/guides/rust.md")]
mod page {}
