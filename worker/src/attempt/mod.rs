//! One run of one job, from a bound ticket to its settlement.
//!
//! Every lease is settled exactly once: the job is published, retried, given up or given back. The
//! only exception is a lost lease, after which this worker publishes nothing more about the job.
//! Settlement never happens in a future that may be dropped.
//!
//! This is the queue side only. An [`Executor`] runs the program; the one of production is in
//! [`crate::execute`].

mod attempts;
mod delivery;
mod executor;
mod occupancy;
mod output;
mod settlement_batcher;
mod slot;

pub(crate) use attempts::Attempts;
pub use delivery::{Delivery, Next};
pub use executor::{Attempt, Execution, Executor, ExecutorError};
pub use occupancy::{Occupancy, OccupancyGuard};
pub use output::{OutputLog, UnflushedOutput};
pub use settlement_batcher::{ClaimOptions, SettlementBatcher, SettlementReply};
pub use slot::Slot;
pub(crate) use slot::slot_count;
