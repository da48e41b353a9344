//! The daemon library: claims jobs from the queue and runs each one in a capped container.
//!
//! The modules, in the order in which a job passes through them: [`admission`] moves a job from
//! the intake into the queue. [`claim`] takes a ticket when a slot and [`capacity`] are free.
//! [`lease`] renews the lease. [`attempt`] runs the job once and settles it; [`execute`] is the
//! part that runs the program in a sandbox. [`retry`] decides when the job runs again.
//!
//! A [`sandbox`] is a container, started from one of the [`images`] and kept warm by a [`pool`];
//! some get a [`gpu`], and some hold one of the loaded [`models`]. [`daemon`] starts and stops
//! everything. [`maintenance`] keeps the namespace and the worker's containers in order, and its
//! rounds fire each [`schedule`]. [`health`], [`http`], [`metrics`] and [`trace`]
//! report the worker's state, and [`doctor`] reports problems of the machine.
//!
//! Jobs come from the queue only, and their code never runs in the process of the worker.

mod admission;
pub mod attempt;
mod backoff;
pub mod capacity;
mod claim;
mod control;
pub mod daemon;
pub mod doctor;
pub mod execute;
pub mod gpu;
pub mod health;
pub mod http;
pub mod images;
pub mod lease;
mod maintenance;
pub mod metrics;
pub mod models;
mod overclaim;
pub mod pool;
pub mod retry;
pub mod sandbox;
pub mod schedule;
pub mod secrets;
mod served_classes;
pub mod trace;
mod waiters;
mod worker_id;

pub use daemon::{StartError, Worker};
pub use sandhog_protocol::pattern;
