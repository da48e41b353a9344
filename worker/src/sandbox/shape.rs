//! How a container is made: under which runtime, and with which caps of its own.
//!
//! Where a runtime lets the runner cap each cell by itself, containers are alike and serve jobs of any caps. Where it
//! does not (gVisor), the container's own caps must be the job's: such a container is made for jobs of exactly these.

use sandhog_common::id::RuntimeName;
use sandhog_common::limits::Limits;
use sandhog_common::units::{ByteCount, CpuMillis};
use sandhog_runner::protocol::{CgroupSupport, Features};

use super::{Engine, Image, SandboxError};

/// Memory of a container whose caps are a job's, beyond the job's own: for the runtime's kernel, which counts there
/// too, and the runner.
const RUNTIME_MEMORY: ByteCount = ByteCount::mib(64);

/// Memory of a container that serves jobs of any caps, beyond the largest job's: for its runner and
/// its zygote. Without it a job that uses all it may would have the kernel look for a victim in the
/// whole container.
pub const CONTAINER_MEMORY: ByteCount = ByteCount::mib(256);

/// How a container is made. Two of the same image and shape may take each other's place.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Shape {
    /// The runtime that runs it.
    pub runtime: RuntimeName,
    /// Its memory.
    pub memory: ByteCount,
    /// Its share of the machine, in thousandths of a core.
    pub cpu_millis: CpuMillis,
    /// Its processes and threads.
    pub pids: u32,
    /// Whether nothing in it caps a cell, so that its caps are those of the job.
    pub caps_the_job: bool,
    /// The GPUs it has, by the driver's names.
    pub gpus: Vec<String>,
}

impl Engine {
    /// The runtime for a job of this image: the one it wishes for if it may, else the image's, else the one that is
    /// set.
    ///
    /// # Errors
    /// [`SandboxError::RuntimeRefused`] when no setting lets jobs choose it.
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

    /// How containers of this image are made where cells have caps of their own: with those that are set.
    #[must_use]
    pub fn shape(&self, image: &Image) -> Shape {
        let settings = self.settings();
        let runtime = image.contract.runtime.as_ref();
        self.roomy(runtime.unwrap_or(&settings.runtime))
    }

    /// How a container for a job of these caps is made under this runtime, as far as is known: before the first
    /// container of a runtime has started, its cells are taken to have caps of their own. Look again when it has.
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

    /// Remembers what cells have under this runtime, and says once where it is little.
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
            tracing::warn!(%runtime, missing, "each job here has a container of its own and starts cold");
        }
    }
}
