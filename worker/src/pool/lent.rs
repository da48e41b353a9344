//! A sandbox that somebody has taken from the pool.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::Shared;
use crate::gpu::Grant;
use crate::sandbox::Sandbox;

/// Why a loan is there to be looked at.
const HELD: &str = "a loan is taken out only by what consumes it";

/// A sandbox out on loan: give it back with [`Pool::give_back`](super::Pool::give_back). Dropping it destroys it in
/// the background; its place is free once it is gone.
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

    /// Keeps these GPUs for it. They are free once it was given back clean, or is gone.
    pub fn keep(&mut self, gpus: Grant) {
        self.gpus = Some(gpus);
    }

    /// Takes the GPUs away from it again.
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
