//! The daemon library: claims jobs off the queue and runs each in a capped container.
//!
//! Modules appear in the order a job meets them: [`admit`] takes it in, [`claim`] takes a ticket
//! with a free slot and [`room`] in hand, [`lease`] keeps it ours, [`attempt`] runs it once and
//! settles it, [`retry`] says when it runs again. A [`sandbox`] is a container that a [`pool`]
//! keeps warm, [`models`] are loaded in some of them; [`images`] are what it starts from; some are
//! given a [`gpu`]. [`supervise`] starts and stops all of it; its upkeep fires every [`schedule`].
//! [`http`], [`metrics`] and [`trace`] tell how it is, [`doctor`] what is wrong with the machine,
//! and [`machine`] which of its limits jobs could use up together.
//!
//! It refuses to take jobs from anywhere but the queue, and to run a job's code in its own process.

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
