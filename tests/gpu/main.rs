//! GPUs, without Redis or an engine: discovery, assignment, and failure.
//!
//! The driver's library is a fake that each test compiles. Behaviour that only real hardware can
//! show is marked as untested in docs/guides/gpu.md.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that panics fails the test that called it, which is its purpose"
)]

mod failing;
mod finding;
mod fixture;
mod giving;
