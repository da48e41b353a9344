//! The contract producers and workers share.
//!
//! Modules appear in the order a job meets them: its identifiers ([`id`]), what it asks for ([`job`], [`infer`],
//! [`limits`], [`gpu`]) and takes ([`size`], [`class`]), how that travels ([`wire`], [`submission`]) or comes again by the clock ([`schedule`], [`timetable`]), where it waits ([`keys`], [`queue`]) and what came of
//! it ([`outcome`], [`display`]). [`config`] and [`clock`] own the environment and the wall clock for the whole workspace.
//!
//! This crate refuses to run anything: it knows no container, no HTTP and no terminal. Code that only one side
//! needs lives on that side.

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
