//! The engine side of sandboxes: the configuration of containers, their failures and removal,
//! images, and the pool.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that panics fails the test that called it, which is its purpose"
)]

mod caps;
mod extends;
mod failures;
mod fixture;
mod images;
mod pool;
mod reaping;
mod remote;
mod runtimes;
