//! The daemon: starts every loop and stops them in two steps.
//!
//! Stopping first ends claiming and gives running jobs a grace period. Then the jobs that still run
//! are given back, their sandboxes are destroyed, and the worker's record is removed. An
//! interruption never counts as a failure of a job.

mod namespace_builder;
mod namespace_connection;
mod namespace_tasks;
mod start_error;
mod worker;
mod worker_context;

pub use start_error::StartError;
pub use worker::Worker;
