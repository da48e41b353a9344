//! A sandbox that somebody has taken from the pool.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::{Shared, count};
use crate::sandbox::Sandbox;

/// Why a loan is there to be looked at.
const HELD: &str = "a loan is taken out only by what consumes it";

/// A sandbox out on loan: give it back with [`Pool::give_back`](super::Pool::give_back). Dropping it destroys it in
/// the background; its place is free once it is gone.
#[derive(Debug)]
pub struct Lent {
    loan: Option<Loan>,
    pool: Arc<Shared>,
}

#[derive(Debug)]
struct Loan {
    sandbox: Sandbox,
    place: OwnedSemaphorePermit,
}

impl Lent {
    pub(super) fn new(sandbox: Sandbox, place: OwnedSemaphorePermit, pool: Arc<Shared>) -> Self {
        Self {
            loan: Some(Loan { sandbox, place }),
            pool,
        }
    }

    pub(super) fn into_parts(mut self) -> (Sandbox, OwnedSemaphorePermit) {
        let Loan { sandbox, place } = self.loan.take().expect(HELD);
        (sandbox, place)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(Loan { sandbox, place }) = self.loan.take() {
            count(&self.pool.tally.spoiled);
            self.pool.destroy_holding(sandbox, place);
        }
    }
}

impl Deref for Lent {
    type Target = Sandbox;

    fn deref(&self) -> &Sandbox {
        &self.loan.as_ref().expect(HELD).sandbox
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut Sandbox {
        &mut self.loan.as_mut().expect(HELD).sandbox
    }
}
