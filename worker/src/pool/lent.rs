//! A sandbox that somebody has taken from the pool.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::Shared;
use crate::sandbox::Sandbox;

/// Why a loan is there to be looked at.
const HELD: &str = "a loan is taken out only by what consumes it";

/// A sandbox out on loan: give it back with [`Pool::give_back`](super::Pool::give_back). Dropping it destroys it in
/// the background; its place is free once it is gone.
#[derive(Debug)]
pub struct Lent {
    loan: Option<(u64, Sandbox)>,
    pool: Arc<Shared>,
}

impl Lent {
    pub(super) fn new(loan: u64, sandbox: Sandbox, pool: Arc<Shared>) -> Self {
        Self {
            loan: Some((loan, sandbox)),
            pool,
        }
    }

    pub(super) fn into_parts(mut self) -> (u64, Sandbox) {
        self.loan.take().expect(HELD)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some((loan, sandbox)) = self.loan.take() {
            self.pool.take_back(loan, sandbox, false, None);
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
