//! A sandbox that one attempt has taken from the pool.

use std::fmt::Debug;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use crate::gpu::Grant;
use crate::sandbox::Sandbox;

/// Panic message for access to a sandbox that was already given back.
const CHECKED_OUT: &str = "the sandbox is taken out only by methods that consume it";

/// A sandbox in use. Give it back with [`Pool::give_back`](super::Pool::give_back). Dropping it
/// destroys the sandbox in the background; its place in the pool is free once the container is
/// removed.
#[derive(Debug)]
pub struct PooledSandbox {
    checkout: Option<(u64, Sandbox)>,
    expects_reuse: bool,
    gpus: Option<Grant>,
    pool: Arc<dyn SandboxReturn>,
}

/// The part of the pool that receives dropped sandboxes.
pub(super) trait SandboxReturn: Debug + Send + Sync {
    /// Receives the parts of a [`PooledSandbox`] that was not given back.
    fn on_drop(self: Arc<Self>, checkout_id: u64, sandbox: Sandbox, gpus: Option<Grant>);
}

impl PooledSandbox {
    pub(super) fn new(
        checkout_id: u64,
        sandbox: Sandbox,
        expects_reuse: bool,
        pool: Arc<dyn SandboxReturn>,
    ) -> Self {
        Self {
            checkout: Some((checkout_id, sandbox)),
            expects_reuse,
            gpus: None,
            pool,
        }
    }

    /// Returns whether the pool expects to give this sandbox to another attempt.
    #[must_use]
    pub fn expects_reuse(&self) -> bool {
        self.expects_reuse
    }

    /// Attaches these GPUs to the sandbox. They become free once it is given back clean or is
    /// removed.
    pub fn attach_gpus(&mut self, gpus: Grant) {
        self.gpus = Some(gpus);
    }

    /// Detaches the GPUs from the sandbox and returns them.
    pub fn detach_gpus(&mut self) -> Option<Grant> {
        self.gpus.take()
    }

    pub(super) fn into_parts(mut self) -> (u64, Sandbox, Option<Grant>) {
        let (checkout_id, sandbox) = self.checkout.take().expect(CHECKED_OUT);
        (checkout_id, sandbox, self.gpus.take())
    }
}

impl Drop for PooledSandbox {
    fn drop(&mut self) {
        if let Some((checkout_id, sandbox)) = self.checkout.take() {
            let gpus = self.gpus.take();
            Arc::clone(&self.pool).on_drop(checkout_id, sandbox, gpus);
        }
    }
}

impl Deref for PooledSandbox {
    type Target = Sandbox;

    fn deref(&self) -> &Sandbox {
        &self.checkout.as_ref().expect(CHECKED_OUT).1
    }
}

impl DerefMut for PooledSandbox {
    fn deref_mut(&mut self) -> &mut Sandbox {
        &mut self.checkout.as_mut().expect(CHECKED_OUT).1
    }
}
