//! The shape of a container: its runtime and its own caps.
//!
//! If the runtime lets the runner cap each cell, all containers are alike and serve jobs with any
//! caps. If it does not (gVisor), the container's own caps must be those of the job, and the
//! container serves only jobs with exactly these caps.

use sandhog_common::id::RuntimeName;
use sandhog_common::limits::Limits;
use sandhog_common::units::{ByteCount, CpuMillis};
use sandhog_runner::protocol::{CgroupSupport, Features};

use super::{Engine, Image, SandboxError};

/// Memory of a container whose caps are a job's, in addition to the job's own: for the runner and
/// for the runtime's kernel, whose memory counts too.
const RUNTIME_MEMORY: ByteCount = ByteCount::mib(64);

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

impl Engine {
    /// Returns the runtime for a job of this image: the runtime that the job asks for if that is
    /// allowed, else the image's, else the configured one.
    ///
    /// # Errors
    /// [`SandboxError::RuntimeRefused`] if neither the image nor a setting lets jobs choose it.
    pub fn runtime(
        &self,
        image: &Image,
        wish: Option<&RuntimeName>,
    ) -> Result<RuntimeName, SandboxError> {
        let settings = self.settings();
        let own = image.contract.runtime.as_ref();
        let own = own.unwrap_or(&settings.runtime);
        match wish {
            Some(wish) if wish != own && !settings.job_runtimes.contains(wish) => {
                let allowed: Vec<&str> = std::iter::once(own)
                    .chain(&settings.job_runtimes)
                    .map(RuntimeName::as_str)
                    .collect();
                Err(SandboxError::RuntimeRefused {
                    runtime: wish.clone(),
                    allowed: allowed.join(", "),
                })
            }
            Some(wish) => Ok(wish.clone()),
            None => Ok(own.clone()),
        }
    }

    /// Returns the shape of this image's containers where cells have caps of their own: the caps
    /// from the settings.
    #[must_use]
    pub fn shape(&self, image: &Image) -> Shape {
        let settings = self.settings();
        let runtime = image.contract.runtime.as_ref();
        self.roomy(runtime.unwrap_or(&settings.runtime))
    }

    /// Returns the shape of a container for a job with these caps under this runtime, as far as is
    /// known. Until the first container of a runtime has started, its cells are assumed to have
    /// caps of their own; the caller must call this again after the start.
    #[must_use]
    pub fn shape_for(&self, runtime: &RuntimeName, limits: &Limits) -> Shape {
        let caps_nothing = self
            .capless()
            .lock()
            .expect("no code panics while it holds this lock")
            .contains(runtime);
        let roomy = self.roomy(runtime);
        if caps_nothing {
            Shape {
                memory: ByteCount(limits.memory.0.saturating_add(RUNTIME_MEMORY.0)),
                cpu_millis: limits.cpu_millis,
                caps_the_job: true,
                ..roomy
            }
        } else {
            roomy
        }
    }

    fn roomy(&self, runtime: &RuntimeName) -> Shape {
        let settings = self.settings();
        Shape {
            runtime: runtime.clone(),
            memory: ByteCount(settings.memory.0.saturating_add(CONTAINER_MEMORY.0)),
            cpu_millis: settings.cpu_millis,
            pids: settings.pids,
            caps_the_job: false,
            gpus: Vec::new(),
        }
    }

    /// Records whether cells can be capped under this runtime, and logs once if they cannot.
    pub(super) fn learn(&self, runtime: &RuntimeName, features: &Features) {
        if features.cgroup != CgroupSupport::None {
            return;
        }
        let new = self
            .capless()
            .lock()
            .expect("no code panics while it holds this lock")
            .insert(runtime.clone());
        if new {
            let missing = features.missing.join("; ");
            tracing::warn!(
                %runtime,
                missing,
                "cells cannot be capped here: each job gets its own container and starts cold"
            );
        }
    }
}
