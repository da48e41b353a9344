//! One job: the one call of a cell, from its `Call` frame to the removal of the cell.
//!
//! [`supervisor`] is the event loop. It owns a [`job::JobRun`], which holds the state of the
//! program and its cell. [`events`] handles the messages of the cell, [`termination`] decides when
//! and how a program is stopped, [`report`] makes the reports at the end, and [`ended_cell`] closes
//! the cell.

mod ended_cell;
mod events;
mod inputs;
mod job;
mod report;
mod supervisor;
mod termination;

pub(crate) use ended_cell::EndedCell;
pub(crate) use supervisor::{NextStep, run_job};
