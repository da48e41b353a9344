//! The engine side: what containers are given, how they fail, that none is left, how images and the pool behave.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that panics fails the test that called it, which is what it is for"
)]

mod caps;
mod extends;
mod failures;
mod ground;
mod images;
mod pool;
mod reaping;
mod remote;
mod runtimes;
