//! Loaded models: one server for each inference image, which processes the jobs of kind `infer`.
//!
//! A job is passed to the supervisor of its model (`ModelSupervisor`) and waits there without a
//! slot; the number of waiting jobs is limited by the number that the model accepts
//! ([`Models::infer`]). The supervisor loads the server on demand, collects jobs into batches,
//! restarts a server that died and stops one that is idle. Each job receives its own result.
//!
//! A job is never answered twice. If a server dies, its jobs count as lost, not as failed. A model
//! that cannot be loaded is not retried forever.

mod admitted_call;
mod dynamic_batcher;
mod infer;
mod infer_policy;
mod infer_protocol;
mod load;
mod load_once;
mod load_permits;
mod model;
mod models;
mod program_call;
mod program_infer;
mod supervisor;
mod tail;

pub(crate) use load_once::load_once;
pub use models::Models;
pub(crate) use program_infer::InferBrokerHandle;
