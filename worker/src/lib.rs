//! The daemon library: claims jobs from the queue and runs each one in a capped container.
//!
//! The modules, in the order in which a job passes through them: [`admit`] moves a job from the
//! intake into the queue. [`claim`] takes a ticket when a slot and capacity ([`room`]) are free.
//! [`lease`] keeps the lease. [`attempt`] runs the job once and settles it. [`retry`] decides when
//! it runs again.
//!
//! A [`sandbox`] is a container, started from one of the [`images`] and kept warm by a [`pool`];
//! some get a [`gpu`], and some hold one of the loaded [`models`]. [`supervise`] starts and stops
//! everything; its maintenance loop fires each [`schedule`]. [`http`], [`metrics`] and [`trace`]
//! report the worker's state, [`doctor`] reports problems of the machine, and [`machine`] compares
//! the limits of the machine with the largest total use of all jobs.
//!
//! Jobs come from the queue only, and their code never runs in the process of the worker.

mod admit;
pub mod attempt;
mod causes;
mod claim;
pub mod doctor;
pub mod gpu;
pub mod http;
pub mod images;
pub mod lease;
pub mod machine;
pub mod metrics;
pub mod models;
mod name;
pub mod pool;
pub mod retry;
pub mod room;
pub mod sandbox;
pub mod schedule;
pub mod secrets;
mod sharing;
pub mod supervise;
pub mod trace;

pub use sandhog_runner::pattern;
pub use supervise::{StartError, Worker};
