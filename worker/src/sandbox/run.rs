//! One running container, and the conversation with the runner in it.

use bytes::Bytes;
use sandhog_runner::protocol::{Features, Report, Run, Stream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Engine, Image, SandboxError};

/// A piece of what a program printed.
pub type Output = (Stream, Bytes);

/// A running container with a runner that waits for a job.
///
/// Dropping it removes the container in the background; [`Sandbox::destroy`] waits for that.
#[derive(Debug)]
pub struct Sandbox {}

impl Engine {
    /// Starts a container from `image` and waits until its runner can take a job.
    ///
    /// # Errors
    /// When the engine refuses, or the runner is not ready in time; nothing is left behind then.
    ///
    /// # Cancel safety
    /// Dropping the future removes the container in the background.
    pub async fn start(&self, image: &Image) -> Result<Sandbox, SandboxError> {
        let _ = image;
        unimplemented!()
    }
}

impl Sandbox {
    /// The container's name.
    #[must_use]
    pub fn name(&self) -> &str {
        unimplemented!()
    }

    /// What it was started from.
    #[must_use]
    pub fn image(&self) -> &Image {
        unimplemented!()
    }

    /// What its runner found the kernel and the runtime to give.
    #[must_use]
    pub fn features(&self) -> &Features {
        unimplemented!()
    }

    /// Runs one program in a fresh cell, sends what it prints to `output`, and returns once the cell is gone.
    ///
    /// `cancel` ends the program; its report then says so. A slow receiver of `output` slows the program down; a
    /// closed one is not an error, its output is dropped.
    ///
    /// # Errors
    /// Always a fault of ours, never the program's; the sandbox must be destroyed after it.
    ///
    /// # Cancel safety
    /// Not cancel safe: when the future is dropped the program may still run, and the sandbox must be destroyed.
    pub async fn run(
        &mut self,
        run: Run,
        output: &mpsc::Sender<Output>,
        cancel: &CancellationToken,
    ) -> Result<Report, SandboxError> {
        let _ = (run, output, cancel);
        unimplemented!()
    }

    /// Kills and removes the container, and waits for it. What the engine refuses is logged and left to the reaper.
    pub async fn destroy(self) {
        unimplemented!()
    }
}
