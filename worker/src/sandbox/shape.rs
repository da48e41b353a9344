//! The shape of a container: its runtime and its own caps.
//!
//! If the runtime lets the runner cap each cell, all containers are alike and serve jobs with any
//! caps. If it does not (gVisor), the container's own caps must be those of the job, and the
//! container serves only jobs with exactly these caps.

use sandhog_core::id::RuntimeName;
use sandhog_core::units::{ByteCount, CpuMillis};

/// Memory of a container that serves jobs with any caps, in addition to the largest job's: for its
/// runner and its zygote. Without it, a job that uses all the memory it may use would make the
/// kernel look for a victim in the whole container.
pub const CONTAINER_MEMORY: ByteCount = ByteCount::mib(256);

/// Shape of a container. Two containers of the same image and shape are interchangeable.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Shape {
    /// The runtime that runs it.
    pub runtime: RuntimeName,
    /// Its memory limit.
    pub memory: ByteCount,
    /// Its CPU limit, in thousandths of a core.
    pub cpu_millis: CpuMillis,
    /// Its limit of processes and threads.
    pub pids: u32,
    /// True if the runner cannot cap a cell in it, so that the container's caps are those of the
    /// job.
    pub caps_the_job: bool,
    /// The GPUs attached to it, by the driver's names.
    pub gpus: Vec<String>,
}
