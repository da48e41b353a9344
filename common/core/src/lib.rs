//! The contract that producers and workers share.
//!
//! The modules appear in the order of a job: its identifiers ([`id`]), what it requests ([`job`],
//! [`infer`], [`limits`], [`gpu`]), its placement ([`size`], [`class`]), its transport ([`wire`],
//! [`submission`]) or its repetition by the clock (`schedule`, `cron`), and its end
//! ([`outcome`], [`display`]).
//!
//! This crate has no I/O: it uses no async runtime, no Redis and no environment. Code that only one
//! side needs belongs to that side.

pub mod backoff;
pub mod blob;
pub mod class;
pub mod clock;
#[cfg(feature = "cron")]
pub mod cron;
pub mod display;
pub mod error_chain;
pub mod files;
pub mod gpu;
pub mod id;
pub mod image;
pub mod infer;
mod intake_error;
pub mod job;
pub mod limits;
pub mod number;
pub mod outcome;
mod priority;
pub mod retry_on;
#[cfg(feature = "cron")]
pub mod schedule;
pub mod size;
pub mod submission;
pub mod suggestion;
pub mod tenant_limits;
pub mod trace;
pub mod units;
pub mod wire;
