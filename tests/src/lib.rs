//! What the suites share: a namespace of one's own on a real Redis, a Redis that may be killed, the real `sandhog`
//! binary as a worker, and a look at the engine's containers.
//!
//! Everything here blocks, so that a test reads from top to bottom and cleans up when it ends, however it ends. A
//! service that was asked for and is missing is a failure with a hint, never a skip; nothing here sleeps where it can
//! wait for an event, and nothing decides a test by how long something took.

pub mod certificates;
pub mod chaos;
pub mod cluster;
pub mod containers;
pub mod given;
pub mod jobs;
pub mod noop;
pub mod nvml;
pub mod page;
pub mod private_redis;
pub mod sentinels;
pub mod soak;
pub mod space;
pub mod worker;
