//! Facts that a container engine reports about itself and its machine.

use sandhog_core::id::RuntimeName;
use sandhog_core::units::{ByteCount, CpuMillis};
use sandhog_queue::MachineFacts;

use super::SandboxError;

/// Facts that the engine reports about itself and its machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineFacts {
    /// Its version, as people read it, with the version of its API if there is one.
    pub version: String,
    /// The kernel its containers run on.
    pub kernel: String,
    /// The runtimes it has, sorted.
    pub runtimes: Vec<String>,
    /// The cgroup version of its machine: 1 or 2.
    pub cgroup_version: u8,
    /// The number of cores of its machine.
    pub cpus: u32,
    /// The memory of its machine.
    pub memory: ByteCount,
    /// True if it certainly runs on the worker's machine, so that the limits of both are the same.
    pub is_local: bool,
    /// A hash of the engine's own id, equal for all workers that use the same engine; 0 if the
    /// engine reports no id.
    pub machine: u64,
    /// True if keepers make the sandboxes, so that a sandbox needs no container of its own.
    pub has_keepers: bool,
}

impl EngineFacts {
    /// Checks that the engine has a runtime.
    ///
    /// # Errors
    /// [`SandboxError::UnknownRuntime`], which lists the runtimes that the engine has.
    pub fn require_runtime(&self, runtime: &RuntimeName) -> Result<(), SandboxError> {
        if self.runtimes.iter().any(|known| known == runtime.as_str()) {
            return Ok(());
        }
        Err(SandboxError::UnknownRuntime {
            runtime: runtime.clone(),
            known: self.runtimes.join(", "),
        })
    }

    /// Returns the facts about the machine that other workers read; `None` if the engine has no id
    /// that identifies it.
    #[must_use]
    pub fn shared_machine(&self) -> Option<MachineFacts> {
        (self.machine != 0).then_some(MachineFacts {
            id: self.machine,
            memory: self.memory,
            cpu_millis: CpuMillis(1000 * u64::from(self.cpus)),
        })
    }
}
