//! The client library: submit a job, follow it, wait for its result.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use sandhog_common::config::RedisSettings;
//! use sandhog_common::id::Namespace;
//! use sandhog_common::job::Job;
//! use sandhog_common::submission::Routing;
//! use sandhog_producer::Client;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let settings = RedisSettings { url: Some("redis://127.0.0.1:6379".into()), ..RedisSettings::default() };
//! let client = Client::connect(&settings, &Namespace::default()).await?;
//! let job = Job::code("python".parse()?, "print(6 * 7)");
//! let result = client.run(&job, Routing::default(), Duration::from_secs(60)).await?;
//! assert_eq!(result.stdout.lossy(), "42\n");
//! # Ok(())
//! # }
//! ```
//!
//! docs/rust.md has more. For many jobs, [`Client::submit_many`] takes a stream of any length, and [`Client::replies`] waits for any number of
//! results on one connection.
//!
//! It is a thin layer over [`sandhog_common::queue`], and adds three things: a job that cannot be meant is refused
//! before it is sent, every job gets an id, so that submitting survives a broken connection without running twice,
//! and waiting outlives a restart of Redis. With the feature `opentelemetry` a job that names no trace is submitted in
//! the caller's current span. It refuses to run anything: that is a worker's part.

mod client;
mod error;
mod follow;
mod inbox;
mod replies;
mod sight;
#[cfg(feature = "opentelemetry")]
mod trace;

pub use client::{Client, read as decode};
pub use error::ClientError;
pub use follow::{Chunk, Follow};
pub use replies::{Pending, Replies};

/// The examples of docs/rust.md, which `cargo test --doc` compiles.
#[cfg(doctest)]
#[doc = include_str!("../../docs/rust.md")]
mod page {}
