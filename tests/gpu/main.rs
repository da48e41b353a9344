//! GPUs with neither Redis nor an engine: what is found, who is given which, and what becomes of one that fails.
//!
//! The driver's library is a stand-in that each test compiles. What only hardware can show is marked as not run in
//! docs/gpu.md.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that panics fails the test that called it, which is what it is for"
)]

mod failing;
mod finding;
mod giving;
mod ground;
