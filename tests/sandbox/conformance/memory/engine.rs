//! The engine in memory that the workers of one test share: its containers and its images.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use sandhog_core::image::ImageContract;
use sandhog_worker::sandbox::{Digest, Image, SandboxOwner};
use tokio::task::AbortHandle;

/// Name of the only image.
pub(super) const IMAGE: &str = "shell";

/// Contract of the only image.
const CONTRACT: &str = "contract = 1\nname = \"shell\"\nsummary = \"\"\nlanguage = \"sh\"\n\
                        [languages.sh]\nstyle = \"file\"\nfile = \"f\"\nargv = [\"/bin/sh\"]\n";

/// The containers of all workers of a test, by name. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct MemoryEngine(Arc<Mutex<BTreeMap<String, MemoryContainer>>>);

/// A container.
#[derive(Debug)]
pub(super) struct MemoryContainer {
    pub(super) owner: SandboxOwner,
    /// True if it ended because it ran out of memory.
    pub(super) is_out_of_memory: bool,
    /// The task of its runner.
    pub(super) runner: AbortHandle,
}

impl Drop for MemoryContainer {
    fn drop(&mut self) {
        self.runner.abort();
    }
}

impl MemoryEngine {
    /// Returns the containers.
    pub(super) fn containers(&self) -> MutexGuard<'_, BTreeMap<String, MemoryContainer>> {
        self.0.lock().unwrap()
    }

    /// Ends the runner of a container. The container stays until it is removed.
    pub(super) fn end(&self, name: &str, is_out_of_memory: bool) {
        let mut containers = self.containers();
        let container = containers.get_mut(name).unwrap();
        container.is_out_of_memory = is_out_of_memory;
        container.runner.abort();
    }
}

/// Returns the only image.
pub(super) fn image() -> Image {
    Image {
        name: IMAGE.parse().unwrap(),
        reference: format!("memory/{IMAGE}"),
        digest: Digest::new("memory:1".to_owned()),
        contract: Arc::new(ImageContract::from_toml(CONTRACT).unwrap()),
    }
}
