//! The production executor: runs each job in a fresh cell of a warm sandbox.
//!
//! A job is first planned: its image decides which command runs, whether a compiler runs before it,
//! and under which limits. The executor then takes a sandbox from the pool, runs the stages of the
//! plan in it and converts the runner's report to the result of the job.

mod collect;
mod compile;
mod outcome;
mod plan;
mod program_run;
mod sandbox_executor;
mod signal_name;

pub(crate) use compile::{Compiled, add_compiled_files, compile};
pub(crate) use plan::Plan;
pub use sandbox_executor::SandboxExecutor;
