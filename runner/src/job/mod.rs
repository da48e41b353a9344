//! One job, from its `Run` frame to its report and the removal of its cell.
//!
//! [`supervisor`] is the event loop. It owns a [`job::JobRun`], which holds the state of the
//! program and its cell. [`events`] handles the messages of the cell, [`termination`] decides when
//! and how a program is stopped, and [`report`] makes the report at the end.

mod events;
mod job;
mod report;
mod supervisor;
mod termination;

pub(crate) use supervisor::{NextStep, run_job};
