//! The warm pool: running containers kept ready for the next job of the same image.
//!
//! At most `slots` containers exist at once, on loan, idle or being destroyed. An idle one serves only the very build
//! of the image it was started from. The pool refuses to vouch for a container: one that did not come back clean, or
//! that ended or spoke while idle, is destroyed.

mod lent;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::sandbox::{Engine, Image, Sandbox, SandboxError};

pub use lent::Lent;

/// Keeps idle sandboxes ready, at most so many containers altogether. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    engine: Engine,
    slots: usize,
    idle_for: Duration,
    /// One permit for each container that is on loan or on its way out.
    places: Arc<Semaphore>,
    shelf: Mutex<Shelf>,
    tally: Tally,
}

/// The idle sandboxes, those used the longest time ago first.
#[derive(Debug)]
struct Shelf {
    idle: Vec<Idle>,
    open: bool,
}

#[derive(Debug)]
struct Idle {
    sandbox: Sandbox,
    since: Instant,
}

#[derive(Debug, Default)]
struct Tally {
    started: AtomicU64,
    reused: AtomicU64,
    evicted: AtomicU64,
    expired: AtomicU64,
    spoiled: AtomicU64,
    failed: AtomicU64,
}

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
    /// Containers destroyed because they came back unclean or not at all, or were found dead.
    pub spoiled: u64,
    /// Starts that failed.
    pub failed: u64,
    /// Containers idle now.
    pub idle: usize,
    /// Containers on loan or being destroyed now.
    pub busy: usize,
}

/// What the shelf has for a loan.
enum Found {
    /// This one is ready.
    Ready(Box<Sandbox>),
    /// A new one must be started, once these are gone.
    Start(Vec<Sandbox>),
}

impl Pool {
    /// A pool of at most `slots` containers that keeps idle ones for `idle_for`; zero keeps none.
    #[must_use]
    pub fn new(engine: Engine, slots: usize, idle_for: Duration) -> Self {
        let slots = slots.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            shared: Arc::new(Shared {
                engine,
                slots,
                idle_for,
                places: Arc::new(Semaphore::new(slots)),
                shelf: Mutex::new(Shelf {
                    idle: Vec::new(),
                    open: true,
                }),
                tally: Tally::default(),
            }),
        }
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
        let shared = &self.shared;
        let place = Arc::clone(&shared.places)
            .acquire_owned()
            .await
            .expect("the pool never closes its semaphore");
        let sandbox = match shared.find(image) {
            Found::Ready(sandbox) => {
                count(&shared.tally.reused);
                *sandbox
            }
            Found::Start(evicted) => {
                join_all(evicted.into_iter().map(Sandbox::destroy)).await;
                let started = shared.engine.start(image).await;
                count(match started {
                    Ok(_) => &shared.tally.started,
                    Err(_) => &shared.tally.failed,
                });
                started?
            }
        };
        Ok(Lent::new(sandbox, place, Arc::clone(shared)))
    }

    /// Takes a sandbox back. Only one whose last report was clean may serve again; any other is destroyed, in the
    /// background.
    pub fn give_back(&self, lent: Lent, clean: bool) {
        let (mut sandbox, place) = lent.into_parts();
        if !clean || !sandbox.is_usable() {
            count(&self.shared.tally.spoiled);
            return self.shared.destroy_holding(sandbox, place);
        }
        let mut shelf = self.shared.shelf();
        if shelf.open && !self.shared.idle_for.is_zero() {
            shelf.idle.push(Idle {
                sandbox,
                since: Instant::now(),
            });
            // Only now, with the shelf still locked: a loan counts idle and busy together.
            drop(place);
        } else {
            drop(shelf);
            count(&self.shared.tally.expired);
            self.shared.destroy_holding(sandbox, place);
        }
    }

    /// Destroys what has been idle for too long; says how many. Call it every few seconds.
    ///
    /// # Cancel safety
    /// Safe: what was begun is finished in the background.
    pub async fn sweep(&self) -> usize {
        let expired = self.shared.shelf().drain_where(|idle| {
            if idle.since.elapsed() >= self.shared.idle_for {
                count(&self.shared.tally.expired);
                true
            } else if idle.sandbox.is_usable() {
                false
            } else {
                count(&self.shared.tally.spoiled);
                true
            }
        });
        let number = expired.len();
        join_all(expired.into_iter().map(Sandbox::destroy)).await;
        number
    }

    /// Destroys every idle sandbox and keeps none from now on: those still on loan are destroyed when given back.
    /// Waits for all that is being destroyed.
    ///
    /// # Cancel safety
    /// Safe: what was begun is finished in the background.
    pub async fn close(&self) {
        let idle = {
            let mut shelf = self.shared.shelf();
            shelf.open = false;
            shelf.drain_where(|_| true)
        };
        join_all(idle.into_iter().map(Sandbox::destroy)).await;
        self.shared.engine.settle().await;
    }

    /// What the pool has done and holds.
    #[must_use]
    pub fn counts(&self) -> PoolCounts {
        let Shared { tally, .. } = &*self.shared;
        PoolCounts {
            started: tally.started.load(Ordering::Relaxed),
            reused: tally.reused.load(Ordering::Relaxed),
            evicted: tally.evicted.load(Ordering::Relaxed),
            expired: tally.expired.load(Ordering::Relaxed),
            spoiled: tally.spoiled.load(Ordering::Relaxed),
            failed: tally.failed.load(Ordering::Relaxed),
            idle: self.shared.shelf().idle.len(),
            busy: self.shared.busy(),
        }
    }
}

impl Shared {
    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf
            .lock()
            .expect("no code panics while it holds this lock")
    }

    fn busy(&self) -> usize {
        self.slots.saturating_sub(self.places.available_permits())
    }

    /// Destroys a sandbox in the background; its place is free once it is gone.
    fn destroy_holding(&self, sandbox: Sandbox, place: OwnedSemaphorePermit) {
        self.engine.finish_later(async move {
            sandbox.destroy().await;
            drop(place);
        });
    }

    /// Takes what serves `image` off the shelf, or makes room for a new one.
    fn find(&self, image: &Image) -> Found {
        let mut shelf = self.shelf();
        let mut gone = shelf.drain_where(|idle| {
            let theirs = idle.sandbox.image();
            let rebuilt = theirs.name == image.name && theirs.digest != image.digest;
            if rebuilt {
                count(&self.tally.evicted);
            }
            rebuilt
        });
        while let Some(at) = shelf
            .idle
            .iter()
            .rposition(|idle| idle.sandbox.image().digest == image.digest)
        {
            let mut sandbox = shelf.idle.remove(at).sandbox;
            if sandbox.is_usable() {
                // Those in `gone` are dropped, which destroys them in the background.
                return Found::Ready(Box::new(sandbox));
            }
            count(&self.tally.spoiled);
            gone.push(sandbox);
        }
        let too_many = (shelf.idle.len() + self.busy()).saturating_sub(self.slots);
        for idle in shelf.idle.drain(..too_many) {
            count(&self.tally.evicted);
            gone.push(idle.sandbox);
        }
        Found::Start(gone)
    }
}

impl Shelf {
    fn drain_where(&mut self, mut doomed: impl FnMut(&mut Idle) -> bool) -> Vec<Sandbox> {
        let (gone, kept) = std::mem::take(&mut self.idle)
            .into_iter()
            .map(|mut idle| (doomed(&mut idle), idle))
            .partition::<Vec<_>, _>(|(doomed, _)| *doomed);
        self.idle = kept.into_iter().map(|(_, idle)| idle).collect();
        gone.into_iter().map(|(_, idle)| idle.sandbox).collect()
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
