//! The contract that producers and workers share.
//!
//! The modules, in the order in which they act on a job:
//!
//! - its identifiers: [`id`]
//! - its request: [`job`], [`infer`], [`limits`], [`gpu`]
//! - its placement: [`size`], [`class`]
//! - its transport: [`wire`], [`submission`], or [`schedule`] and [`timetable`] for jobs that
//!   repeat
//! - its storage in Redis: [`keys`], [`queue`]
//! - its result: [`outcome`], [`display`]
//!
//! [`config`] and [`clock`] own the environment and the wall clock for the whole workspace.
//!
//! This crate runs nothing and depends on no container engine, HTTP library or terminal. Code that
//! only one side needs lives on that side.

pub mod blob;
pub mod class;
pub mod clock;
pub mod config;
pub mod display;
pub mod files;
pub mod gpu;
pub mod id;
pub mod image;
pub mod infer;
mod intake_error;
pub mod job;
pub mod keys;
pub mod limits;
pub mod numbers;
pub mod outcome;
mod priority;
pub mod queue;
pub mod retry_on;
pub mod schedule;
pub mod size;
pub mod submission;
pub mod telemetry;
pub mod tenancy;
pub mod timetable;
pub mod trace;
pub mod units;
pub mod wire;
