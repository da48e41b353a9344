//! Account of a worker's capacity: taken amounts and the advance reservation.

use sandhog_core::class::Class;
use sandhog_core::id::Namespace;
use sandhog_core::size::Resources;

/// Bounds of a worker's capacity.
#[derive(Debug, Clone, Copy)]
pub(super) struct LedgerBounds {
    /// Memory and CPU of the worker.
    pub(super) total: Resources,
    /// Amount that each job takes in addition to its size, for its container.
    pub(super) overhead_per_job: Resources,
}

/// The account.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Sum of all reservations.
    pub(super) taken: Resources,
    /// Capacity kept free for a job that has waited too long, if there is such a job.
    pub(super) advance: Option<AdvanceReservation>,
    /// Number of advance reservations made so far. A job records it when it starts, which shows
    /// later whether it started during the current advance reservation.
    pub(super) epoch: u64,
}

/// Capacity kept free for one job that is not claimed yet.
#[derive(Debug)]
pub(super) struct AdvanceReservation {
    pub(super) namespace: Namespace,
    pub(super) class: Class,
    /// Amount that the job takes.
    pub(super) need: Resources,
    /// Amount taken by other jobs that started since the advance reservation was made.
    pub(super) taken_by_others: Resources,
}

impl LedgerBounds {
    /// Returns the amount that one job of a class takes. A job larger than the total capacity takes
    /// all of it.
    pub(super) fn need(&self, class: &Class) -> Resources {
        (class.size().resources())
            .saturating_add(self.overhead_per_job)
            .min(self.total)
    }
}

impl AdvanceReservation {
    /// Returns whether the job belongs to this namespace and class.
    pub(super) fn is_for(&self, namespace: &Namespace, class: &Class) -> bool {
        self.namespace == *namespace && self.class == *class
    }
}

impl Ledger {
    /// Returns the amount that jobs of a class may take now.
    pub(super) fn available_to(
        &self,
        bounds: LedgerBounds,
        namespace: &Namespace,
        class: &Class,
    ) -> Resources {
        let free = bounds.total.saturating_sub(self.taken);
        match &self.advance {
            Some(advance) if !advance.is_for(namespace, class) => free.min(
                (bounds.total)
                    .saturating_sub(advance.need)
                    .saturating_sub(advance.taken_by_others),
            ),
            Some(_) | None => free,
        }
    }

    /// Returns the number of jobs of a class that fit now.
    pub(super) fn fits(&self, bounds: LedgerBounds, namespace: &Namespace, class: &Class) -> usize {
        self.available_to(bounds, namespace, class)
            .count_fitting(bounds.need(class))
    }

    /// Returns whether the advance reservation is for a job of this class.
    pub(super) fn is_reserved_for(&self, namespace: &Namespace, class: &Class) -> bool {
        let advance = self.advance.as_ref();
        advance.is_some_and(|advance| advance.is_for(namespace, class))
    }

    /// Records the start of a job whose amount is already taken. Returns the number of the advance
    /// reservation that the job started under, or zero if there is none.
    pub(super) fn record_start(
        &mut self,
        namespace: &Namespace,
        class: &Class,
        need: Resources,
    ) -> u64 {
        if self.is_reserved_for(namespace, class) {
            self.advance = None;
        }
        let Some(advance) = &mut self.advance else {
            return 0;
        };
        advance.taken_by_others = advance.taken_by_others.saturating_add(need);
        self.epoch
    }

    /// Records that a job that started in `epoch` returned its amount.
    pub(super) fn record_return(&mut self, amount: Resources, epoch: u64) {
        self.taken = self.taken.saturating_sub(amount);
        if let Some(advance) = self.advance.as_mut().filter(|_| epoch == self.epoch) {
            advance.taken_by_others = advance.taken_by_others.saturating_sub(amount);
        }
    }

    /// Replaces the amount of a job that started in `epoch`.
    pub(super) fn record_resize(&mut self, before: Resources, after: Resources, epoch: u64) {
        self.record_return(before, epoch);
        self.taken = self.taken.saturating_add(after);
        if let Some(advance) = self.advance.as_mut().filter(|_| epoch == self.epoch) {
            advance.taken_by_others = advance.taken_by_others.saturating_add(after);
        }
    }
}
