//! Fixtures that the suites share: a fresh namespace on a real Redis, a Redis server that a test
//! may kill, the real `sandhog` binary as a worker, and a client of the container engine.
//!
//! Everything here blocks, so that a test reads from top to bottom and cleans up however it ends. A
//! service that was asked for and is missing is a failure with a hint, never a skip. Nothing sleeps
//! where it can wait for an event, and the duration of a step never decides a test.

pub mod certificates;
pub mod chaos;
pub mod cluster;
pub mod containers;
pub mod environment;
pub mod eventually;
pub mod jobs;
pub mod keeper_container;
pub mod namespace;
pub mod noop;
pub mod noop_worker;
pub mod nvml;
pub mod page;
pub mod private_redis;
pub mod sentinels;
pub mod soak;
pub mod worker;
pub mod worker_child;
