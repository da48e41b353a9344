//! GPUs of the worker: discovery through the driver's library, assignment to jobs, and health
//! checks.
//!
//! Each GPU is offered as tags, is given to one job at a time or shared by memory, and is taken out
//! of service when it fails. On a machine without the driver there are none, and the worker runs
//! only jobs that need no GPU.
//!
//! The tag `gpu` is more than a label: a worker without a working GPU never offers it, and a job of
//! a class that contains it gets a GPU. The holder of a GPU that fails is notified at once, and its
//! job is lost through a fault of the service.
//!
//! A failed GPU is never assigned. Two jobs share a GPU only if both state how much of its memory
//! they use.

mod allocator;
mod assigner;
mod demand;
mod discover;
mod gpus;
mod health;
mod model_tag;

pub use allocator::Grant;
pub use assigner::Unsatisfiable;
pub use demand::Demand;
pub use discover::{Discovery, FoundGpu, GpuError, discover};
pub use gpus::{GPUS_VARIABLE, Gpus};
