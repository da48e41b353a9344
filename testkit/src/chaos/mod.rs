//! A chaos run over real worker processes: workers and Redis die by SIGKILL, workers freeze past
//! their lease and thaw, jobs are submitted twice and cancelled. At the end every job must have
//! exactly one result.
//!
//! With workers that make sandboxes, their containers and the runners of keepers die too.
//!
//! `scripts/chaos` runs it at full length and the system suite runs a short version. The run only
//! counts; [`Verdict::met`] decides whether the counts are good. Nothing is asserted about the time
//! of events.

mod fleet;
mod plan;
mod retrying_connection;
mod run;
mod sandbox_faults;
mod submit;
mod verdict;
mod wait;
mod worker_start;

pub use plan::{ChaosPlan, ChaosWorkers};
pub use run::{count_state, run};
pub use verdict::Verdict;
