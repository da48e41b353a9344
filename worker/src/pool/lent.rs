//! A sandbox on loan from the pool.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::Shared;
use crate::gpu::Grant;
use crate::sandbox::Sandbox;

/// Panic message for access to a loan that was already taken out.
const HELD: &str = "the loan is taken out only by methods that consume it";

/// A sandbox on loan. Give it back with [`Pool::give_back`](super::Pool::give_back). Dropping it
/// destroys the sandbox in the background; its place in the pool is free once the container is
/// removed.
#[derive(Debug)]
pub struct Lent {
    loan: Option<(u64, Sandbox)>,
    gpus: Option<Grant>,
    pool: Arc<Shared>,
}

impl Lent {
    pub(super) fn new(loan: u64, sandbox: Sandbox, pool: Arc<Shared>) -> Self {
        Self {
            loan: Some((loan, sandbox)),
            gpus: None,
            pool,
        }
    }

    /// Attaches these GPUs to the loan. They become free once the sandbox is given back clean or is
    /// removed.
    pub fn keep(&mut self, gpus: Grant) {
        self.gpus = Some(gpus);
    }

    /// Detaches the GPUs from the loan and returns them.
    pub fn leave(&mut self) -> Option<Grant> {
        self.gpus.take()
    }

    pub(super) fn into_parts(mut self) -> (u64, Sandbox, Option<Grant>) {
        let (loan, sandbox) = self.loan.take().expect(HELD);
        (loan, sandbox, self.gpus.take())
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some((loan, sandbox)) = self.loan.take() {
            let gpus = self.gpus.take();
            self.pool.take_back(loan, sandbox, false, None, gpus);
        }
    }
}

impl Deref for Lent {
    type Target = Sandbox;

    fn deref(&self) -> &Sandbox {
        &self.loan.as_ref().expect(HELD).1
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut Sandbox {
        &mut self.loan.as_mut().expect(HELD).1
    }
}
