//! Jobs of kind `infer`, from a plain stream entry to a plain list, through real workers and real models.
//!
//! What small models can show is shown with one of the tests' own; the images that ship are each asked something real.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that panics fails the test that called it, which is what it is for"
)]

mod asking;
mod baked;
mod batches;
mod check;
mod ends;
mod faults;
mod gpu;
mod ground;
mod life;
mod line;
mod proxy;
mod server;
mod shipped;
mod tenants;
