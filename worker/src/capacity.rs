//! Memory and CPU that this worker has for jobs.
//!
//! A job takes its capacity when its ticket is claimed and returns it when nothing of the job is
//! left. So a worker never holds a job that has to wait for the end of another one. An advance
//! reservation keeps capacity free for a job that has waited too long: other jobs start only if
//! they fit beside that job, counted from the moment the advance reservation was made. The job then
//! fits as soon as the jobs that ran before have ended.
//!
//! This module does not depend on containers: the memory that a container holds beyond its job is a
//! fixed amount added to each job. A worker without containers and without a budget has unlimited
//! capacity.

mod ledger;

use std::sync::{Arc, Mutex, MutexGuard};

use sandhog_core::class::Class;
use sandhog_core::id::Namespace;
use sandhog_core::size::{Resources, Size};
use sandhog_core::units::{ByteCount, CpuMillis};
use sandhog_queue::ClaimRequest;
use tokio::sync::watch;

use ledger::{AdvanceReservation, Ledger, LedgerBounds};

/// The capacity of a worker. Cheap to clone; all clones share the same state.
#[derive(Debug, Clone)]
pub struct Capacity(Arc<CapacityState>);

#[derive(Debug)]
struct CapacityState {
    /// `None` if there is no bound.
    bounds: Option<LedgerBounds>,
    ledger: Mutex<Ledger>,
    /// Notified when capacity is returned or an advance reservation ends.
    changed: watch::Sender<()>,
}

/// The capacity taken by one job; returned when dropped.
///
/// It is independent of the attempt that made it: its owner may move it to something that outlives
/// the attempt.
#[derive(Debug)]
pub struct Reservation {
    capacity: Capacity,
    amount: Resources,
    /// Number of the advance reservation that the job started under, or zero.
    epoch: u64,
}

/// Capacity set aside for jobs that are about to be claimed. The unused rest is returned when
/// dropped.
#[derive(Debug)]
pub(crate) struct ClaimBudget {
    rest: Reservation,
    namespace: Namespace,
    /// The claim that this capacity allows.
    pub(crate) request: ClaimRequest,
}

impl Capacity {
    /// Creates unlimited capacity.
    #[must_use]
    pub fn unbounded() -> Self {
        Self::with_bounds(None)
    }

    /// Creates capacity of this much memory and CPU; zero means no bound. Each job takes
    /// `overhead_per_job` of memory in addition to its limits, for its container.
    #[must_use]
    pub fn new(memory: ByteCount, cpu: CpuMillis, overhead_per_job: ByteCount) -> Self {
        let total = Resources {
            memory_mib: match memory {
                ByteCount(0) => Resources::UNBOUNDED.memory_mib,
                ByteCount(set) => (set >> 20).max(1),
            },
            cpu_millis: match cpu {
                CpuMillis(0) => Resources::UNBOUNDED.cpu_millis,
                CpuMillis(set) => set,
            },
        };
        let overhead_per_job = Resources {
            memory_mib: overhead_per_job.0.div_ceil(1 << 20),
            cpu_millis: 0,
        };
        Self::with_bounds((total != Resources::UNBOUNDED).then_some(LedgerBounds {
            total,
            overhead_per_job,
        }))
    }

    fn with_bounds(bounds: Option<LedgerBounds>) -> Self {
        Self(Arc::new(CapacityState {
            bounds,
            ledger: Mutex::default(),
            changed: watch::Sender::new(()),
        }))
    }

    /// Returns the size of the largest job that fits: the total capacity, rounded up as job sizes
    /// are, so that a job that asks for all of it fits. `None` if there is no bound.
    #[must_use]
    pub fn largest(&self) -> Option<Size> {
        let LedgerBounds {
            total,
            overhead_per_job,
        } = self.0.bounds?;
        let Resources {
            memory_mib,
            cpu_millis,
        } = total.saturating_sub(overhead_per_job);
        let memory = ByteCount(memory_mib.saturating_mul(1 << 20));
        Some(Size::of(memory, CpuMillis(cpu_millis)))
    }

    /// Returns whether a job of this class fits when nothing else runs. Jobs of the default size
    /// always do: if the total capacity is smaller, they take all of it.
    #[must_use]
    pub fn could_hold(&self, class: &Class) -> bool {
        let size = class.size();
        size == Size::DEFAULT || self.largest().is_none_or(|largest| largest.covers(size))
    }

    /// Returns the number of jobs of this class that fit now.
    #[must_use]
    pub fn fits(&self, namespace: &Namespace, class: &Class) -> usize {
        let Some(bounds) = self.0.bounds else {
            return usize::MAX;
        };
        self.ledger().fits(bounds, namespace, class)
    }

    /// Takes the capacity for one job, or returns `None` if there is not enough. Ends the advance
    /// reservation if the job is the one that it was made for.
    #[must_use]
    pub fn reserve(&self, namespace: &Namespace, class: &Class) -> Option<Reservation> {
        let Some(bounds) = self.0.bounds else {
            return Some(self.reservation(Resources::default(), 0));
        };
        let mut ledger = self.ledger();
        if ledger.fits(bounds, namespace, class) == 0 {
            return None;
        }
        let need = bounds.need(class);
        ledger.taken = ledger.taken.saturating_add(need);
        let epoch = ledger.record_start(namespace, class, need);
        Some(self.reservation(need, epoch))
    }

    /// Returns the capacity of the finished jobs and sets capacity aside for at most `most` jobs of
    /// some of these classes. If the class with an advance reservation fits, only that class is
    /// offered.
    pub(crate) fn claim_budget(
        &self,
        finished: Vec<Reservation>,
        namespace: &Namespace,
        classes: &[Class],
        most: usize,
    ) -> ClaimBudget {
        let Some(bounds) = self.0.bounds else {
            return ClaimBudget {
                rest: self.reservation(Resources::default(), 0),
                namespace: namespace.clone(),
                request: ClaimRequest::unbounded(most, classes),
            };
        };
        let mut ledger = self.ledger();
        for mut reservation in finished {
            // Without an amount, the drop of the reservation does not lock the ledger again.
            let amount = std::mem::take(&mut reservation.amount);
            ledger.record_return(amount, reservation.epoch);
        }
        let fits = |class: &&Class| ledger.fits(bounds, namespace, class) > 0;
        let reserved = classes
            .iter()
            .find(|class| ledger.is_reserved_for(namespace, class))
            .filter(fits);
        let classes: Vec<&Class> = match reserved {
            Some(class) => vec![class],
            None => classes.iter().filter(fits).collect(),
        };
        let mut free = Resources::default();
        for class in &classes {
            let available = ledger.available_to(bounds, namespace, class);
            free = free.max(bounds.need(class).saturating_mul(most).min(available));
        }
        ledger.taken = ledger.taken.saturating_add(free);
        drop(ledger);
        // The finished jobs may have returned more than is now set aside.
        self.0.changed.send_replace(());
        let classes = classes
            .into_iter()
            .map(|class| (class.clone(), bounds.need(class)))
            .collect();
        ClaimBudget {
            rest: self.reservation(free, 0),
            namespace: namespace.clone(),
            request: ClaimRequest {
                most,
                free,
                classes,
                lane: 0,
            },
        }
    }

    /// Keeps capacity free for one job of this class, unless another namespace has an advance
    /// reservation already.
    pub(crate) fn reserve_in_advance(&self, namespace: &Namespace, class: &Class) {
        let Some(bounds) = self.0.bounds else { return };
        let mut ledger = self.ledger();
        if (ledger.advance.as_ref())
            .is_some_and(|advance| advance.class == *class || advance.namespace != *namespace)
        {
            return;
        }
        ledger.epoch += 1;
        ledger.advance = Some(AdvanceReservation {
            namespace: namespace.clone(),
            class: class.clone(),
            need: bounds.need(class),
            taken_by_others: Resources::default(),
        });
        drop(ledger);
        self.0.changed.send_replace(());
    }

    /// Ends the advance reservation if it belongs to this namespace.
    pub(crate) fn cancel_advance_reservation(&self, namespace: &Namespace) {
        let mut ledger = self.ledger();
        let advance = ledger.advance.as_ref();
        if advance.is_some_and(|advance| advance.namespace == *namespace) {
            ledger.advance = None;
            drop(ledger);
            self.0.changed.send_replace(());
        }
    }

    /// Returns the class with an advance reservation, if it belongs to this namespace.
    #[must_use]
    pub fn advance_reservation(&self, namespace: &Namespace) -> Option<Class> {
        let ledger = self.ledger();
        let advance =
            (ledger.advance.as_ref()).filter(|advance| advance.namespace == *namespace)?;
        Some(advance.class.clone())
    }

    /// Returns a receiver that is notified when capacity is returned or an advance reservation
    /// ends.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.0.changed.subscribe()
    }

    fn reservation(&self, amount: Resources, epoch: u64) -> Reservation {
        Reservation {
            capacity: self.clone(),
            amount,
            epoch,
        }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        (self.0.ledger.lock()).expect("no code panics while it holds this lock")
    }
}

impl Reservation {
    /// Replaces the reserved amount by the job's actual limits once they are known.
    pub fn resize(&mut self, memory: ByteCount, cpu: CpuMillis) {
        let Some(bounds) = self.capacity.0.bounds else {
            return;
        };
        let limits = Resources {
            memory_mib: memory.0.div_ceil(1 << 20),
            cpu_millis: cpu.0,
        };
        let amount = (limits.saturating_add(bounds.overhead_per_job)).min(bounds.total);
        if amount == self.amount {
            return;
        }
        let mut ledger = self.capacity.ledger();
        ledger.record_resize(self.amount, amount, self.epoch);
        drop(ledger);
        self.amount = amount;
        self.capacity.0.changed.send_replace(());
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.amount != Resources::default() {
            (self.capacity.ledger()).record_return(self.amount, self.epoch);
            self.capacity.0.changed.send_replace(());
        }
    }
}

impl ClaimBudget {
    /// Splits off the capacity for one job that was claimed with this budget.
    pub(crate) fn reserve(&mut self, class: &Class) -> Reservation {
        let capacity = self.rest.capacity.clone();
        let Some(bounds) = capacity.0.bounds else {
            return capacity.reservation(Resources::default(), 0);
        };
        let need = bounds.need(class).min(self.rest.amount);
        self.rest.amount = self.rest.amount.saturating_sub(need);
        let epoch = (capacity.ledger()).record_start(&self.namespace, class, need);
        capacity.reservation(need, epoch)
    }
}

#[cfg(test)]
mod tests;
