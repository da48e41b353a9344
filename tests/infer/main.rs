//! Jobs of kind `infer`, from a plain stream entry to a plain list, through real workers and real
//! models.
//!
//! Small models of the tests' own cover most behaviour; the shipped images each get a realistic
//! request.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that panics fails the test that called it, which is its purpose"
)]

mod asking;
mod baked;
mod batches;
mod check;
mod ends;
mod faults;
mod fixture;
mod gpu;
mod life;
mod proxy;
mod raw_connection;
mod server;
mod shipped;
mod tenants;
