//! How a container is made: under which runtime, and with which caps of its own.

use sandhog_common::id::RuntimeName;
use sandhog_common::units::{ByteCount, CpuMillis};

use super::{Engine, Image};

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
}

impl Engine {
    /// How containers of this image are made for jobs that ask for nothing special: the image's runtime, else the one
    /// that is set, with the caps that are set.
    #[must_use]
    pub fn shape(&self, image: &Image) -> Shape {
        let settings = self.settings();
        let runtime = image.contract.runtime.as_ref();
        Shape {
            runtime: runtime.unwrap_or(&settings.runtime).clone(),
            memory: settings.memory,
            cpu_millis: settings.cpu_millis,
            pids: settings.pids,
        }
    }
}
