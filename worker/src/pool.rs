//! The warm pool: running containers kept ready for the next job of the same image.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use crate::sandbox::{Engine, Image, Sandbox, SandboxError};

/// Keeps idle sandboxes ready, at most so many containers altogether. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pool {}

/// A sandbox out on loan: give it back with [`Pool::give_back`]. Dropping it destroys it in the background and frees
/// its place.
#[derive(Debug)]
pub struct Lent {}

/// What the pool has done since it was made, and what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PoolCounts {
    /// Containers started.
    pub started: u64,
    /// Loans served by a container that was ready.
    pub reused: u64,
    /// Idle containers destroyed to make room for another image, or because theirs was rebuilt.
    pub evicted: u64,
    /// Idle containers destroyed because nobody wanted them for long.
    pub expired: u64,
    /// Containers destroyed because they came back unclean, or were found dead.
    pub spoiled: u64,
    /// Starts that failed.
    pub failed: u64,
    /// Containers idle now.
    pub idle: usize,
    /// Containers on loan now.
    pub busy: usize,
}

impl Pool {
    /// A pool of at most `slots` containers that keeps idle ones for `idle`; a zero `idle` keeps none.
    #[must_use]
    pub fn new(engine: Engine, slots: usize, idle: Duration) -> Self {
        let _ = (engine, slots, idle);
        unimplemented!()
    }

    /// A ready sandbox of `image`: an idle one, or a new one in a free place, or one in the place of the idle
    /// container that was used the longest time ago. Waits while all are on loan.
    ///
    /// # Errors
    /// When a container could not be started.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn take(&self, image: &Image) -> Result<Lent, SandboxError> {
        let _ = image;
        unimplemented!()
    }

    /// Takes a sandbox back. Only one whose last report was clean may serve again; any other is destroyed, in the
    /// background.
    pub fn give_back(&self, lent: Lent, clean: bool) {
        let _ = (lent, clean);
        unimplemented!()
    }

    /// Destroys what has been idle for too long; says how many. Call it every few seconds.
    pub async fn sweep(&self) -> usize {
        unimplemented!()
    }

    /// Destroys every idle sandbox and keeps none from now on: those still on loan are destroyed when given back.
    /// Waits for all that is being destroyed.
    pub async fn close(&self) {
        unimplemented!()
    }

    /// What the pool has done and holds.
    #[must_use]
    pub fn counts(&self) -> PoolCounts {
        unimplemented!()
    }
}

impl Deref for Lent {
    type Target = Sandbox;

    fn deref(&self) -> &Sandbox {
        unimplemented!()
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut Sandbox {
        unimplemented!()
    }
}
