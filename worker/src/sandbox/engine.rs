//! The connection to the container engine.

use sandhog_common::config::SandboxSettings;
use sandhog_common::id::{Namespace, WorkerId};
use sandhog_common::units::ByteCount;

use super::SandboxError;

/// A connection to the container engine, on behalf of one worker. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Engine {}

/// What an engine says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineFacts {
    /// Its version.
    pub version: String,
    /// The API version spoken with it.
    pub api_version: String,
    /// The kernel its containers run on.
    pub kernel: String,
    /// The runtimes it has, sorted.
    pub runtimes: Vec<String>,
    /// The cgroup version of its machine: 1 or 2.
    pub cgroup_version: u8,
    /// Its machine's cores.
    pub cpus: u32,
    /// Its machine's memory.
    pub memory: ByteCount,
}

impl Engine {
    /// Connects, agrees on an API version and checks that the runtime exists.
    ///
    /// # Errors
    /// When the address is not valid, nothing answers there, or the engine lacks the runtime.
    pub async fn connect(
        settings: &SandboxSettings,
        namespace: &Namespace,
        worker: &WorkerId,
    ) -> Result<Self, SandboxError> {
        let _ = (settings, namespace, worker);
        unimplemented!()
    }

    /// What the engine and its machine are, as seen when connecting.
    #[must_use]
    pub fn facts(&self) -> &EngineFacts {
        unimplemented!()
    }

    /// Asks the engine whether it is there.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn ping(&self) -> Result<(), SandboxError> {
        unimplemented!()
    }
}
