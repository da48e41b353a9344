//! Memory and CPU that this worker has for jobs, and the reservation for a job that has waited
//! long.
//!
//! A job takes its capacity when its ticket is claimed and returns it when nothing of the job is
//! left. So a worker never holds a job that has to wait for the end of another one. While a
//! reservation exists, other jobs start only if they fit beside the reserved job, counted from the
//! moment the reservation was made. The reserved job then fits as soon as the jobs that ran before
//! have ended.
//!
//! This module does not depend on containers: the memory that a container holds beyond its job is a
//! fixed amount added to each job. A worker without containers and without a budget has unlimited
//! capacity.

use std::sync::{Arc, Mutex, MutexGuard};

use sandhog_common::class::Class;
use sandhog_common::id::Namespace;
use sandhog_common::queue::Claiming;
use sandhog_common::size::{Amount, Size};
use sandhog_common::units::{ByteCount, CpuMillis};
use tokio::sync::watch;

/// The capacity of a worker. Cheap to clone; all clones share the same state.
#[derive(Debug, Clone)]
pub struct Room(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Total capacity and surcharge per job; `None` if there is no bound.
    bounds: Option<Bounds>,
    books: Mutex<Books>,
    /// Notified when capacity is returned or a reservation ends.
    changed: watch::Sender<()>,
}

#[derive(Debug, Clone, Copy)]
struct Bounds {
    whole: Amount,
    beyond: Amount,
}

#[derive(Debug, Default)]
struct Books {
    taken: Amount,
    kept: Option<Kept>,
    /// Number of reservations made so far. A job records it when it starts, which shows later
    /// whether it started during the current reservation.
    spell: u64,
}

/// Reservation of capacity for one job.
#[derive(Debug)]
struct Kept {
    namespace: Namespace,
    class: Class,
    need: Amount,
    /// Amount taken by other jobs that started since the reservation was made.
    beside: Amount,
}

/// The capacity taken by one job; returned when dropped.
#[derive(Debug)]
pub struct Hold {
    room: Room,
    amount: Amount,
    spell: u64,
}

/// Capacity set aside for jobs that are about to be claimed. The unused rest is returned when
/// dropped.
#[derive(Debug)]
pub(crate) struct Offer {
    hold: Hold,
    namespace: Namespace,
    /// The claim that this capacity allows.
    pub(crate) claiming: Claiming,
}

impl Room {
    /// Creates unlimited capacity.
    #[must_use]
    pub fn unbounded() -> Self {
        Self::with(None)
    }

    /// Creates capacity of this much memory and CPU; zero means no bound. Each job takes `beyond`
    /// of memory in addition to its limits, for its container.
    #[must_use]
    pub fn new(memory: ByteCount, cpu: CpuMillis, beyond: ByteCount) -> Self {
        let whole = Amount {
            memory_mib: match memory {
                ByteCount(0) => Amount::UNBOUNDED.memory_mib,
                ByteCount(set) => (set >> 20).max(1),
            },
            cpu_millis: match cpu {
                CpuMillis(0) => Amount::UNBOUNDED.cpu_millis,
                CpuMillis(set) => set,
            },
        };
        let beyond = Amount {
            memory_mib: beyond.0.div_ceil(1 << 20),
            cpu_millis: 0,
        };
        Self::with((whole != Amount::UNBOUNDED).then_some(Bounds { whole, beyond }))
    }

    fn with(bounds: Option<Bounds>) -> Self {
        Self(Arc::new(Shared {
            bounds,
            books: Mutex::default(),
            changed: watch::Sender::new(()),
        }))
    }

    /// Returns the size of the largest job that fits: the total capacity, rounded up as job sizes
    /// are, so that a job that asks for all of it fits. `None` if there is no bound.
    #[must_use]
    pub fn largest(&self) -> Option<Size> {
        let Bounds { whole, beyond } = self.0.bounds?;
        let Amount {
            memory_mib,
            cpu_millis,
        } = whole.less(beyond);
        let memory = ByteCount(memory_mib.saturating_mul(1 << 20));
        Some(Size::of(memory, CpuMillis(cpu_millis)))
    }

    /// Returns whether a job of this class fits when nothing else runs. Jobs of the default size
    /// always do: if the total capacity is smaller, they take all of it.
    #[must_use]
    pub fn could_hold(&self, class: &Class) -> bool {
        let size = class.size();
        size == Size::ORDINARY || self.largest().is_none_or(|largest| largest.covers(size))
    }

    /// Returns the number of jobs of this class that fit now.
    #[must_use]
    pub fn fits(&self, namespace: &Namespace, class: &Class) -> usize {
        let Some(bounds) = self.0.bounds else {
            return usize::MAX;
        };
        let books = self.books();
        books
            .open(bounds, namespace, class)
            .holds(bounds.need(class))
    }

    /// Takes the capacity for one job, or returns `None` if there is not enough. Ends the
    /// reservation if the job is the one that it was made for.
    #[must_use]
    pub fn take(&self, namespace: &Namespace, class: &Class) -> Option<Hold> {
        let Some(bounds) = self.0.bounds else {
            return Some(self.hold(Amount::default(), 0));
        };
        let mut books = self.books();
        let need = bounds.need(class);
        if books.open(bounds, namespace, class).holds(need) == 0 {
            return None;
        }
        books.taken = books.taken.plus(need);
        let spell = books.began(namespace, class, need);
        Some(self.hold(need, spell))
    }

    /// Returns the capacity of the finished jobs `over` and sets capacity aside for at most `most`
    /// jobs of some of these classes. If the class with a reservation fits, only that class is
    /// offered.
    pub(crate) fn offer(
        &self,
        over: Vec<Hold>,
        namespace: &Namespace,
        classes: &[Class],
        most: usize,
    ) -> Offer {
        let Some(bounds) = self.0.bounds else {
            return Offer {
                hold: self.hold(Amount::default(), 0),
                namespace: namespace.clone(),
                claiming: Claiming::unbounded(most, classes),
            };
        };
        let mut books = self.books();
        for mut hold in over {
            books.ended(std::mem::take(&mut hold.amount), hold.spell);
        }
        let fitting = |class: &&Class| {
            books
                .open(bounds, namespace, class)
                .holds(bounds.need(class))
                > 0
        };
        let kept = classes
            .iter()
            .find(|class| books.keeps_for(namespace, class))
            .filter(fitting);
        let classes: Vec<&Class> = match kept {
            Some(class) => vec![class],
            None => classes.iter().filter(fitting).collect(),
        };
        let mut free = Amount::default();
        for class in &classes {
            let open = books.open(bounds, namespace, class);
            free = free.max(bounds.need(class).times(most).min(open));
        }
        books.taken = books.taken.plus(free);
        drop(books);
        // The finished jobs may have returned more than is now set aside.
        self.0.changed.send_replace(());
        let classes = classes
            .into_iter()
            .map(|class| (class.clone(), bounds.need(class)))
            .collect();
        Offer {
            hold: self.hold(free, 0),
            namespace: namespace.clone(),
            claiming: Claiming {
                most,
                free,
                classes,
                lane: 0,
            },
        }
    }

    /// Makes a reservation for one job of this class, unless another namespace has one already.
    pub(crate) fn keep_for(&self, namespace: &Namespace, class: &Class) {
        let Some(bounds) = self.0.bounds else { return };
        let mut books = self.books();
        let kept = books.kept.as_ref();
        if books.keeps_for(namespace, class) || kept.is_some_and(|k| k.namespace != *namespace) {
            return;
        }
        books.spell += 1;
        books.kept = Some(Kept {
            namespace: namespace.clone(),
            class: class.clone(),
            need: bounds.need(class),
            beside: Amount::default(),
        });
        drop(books);
        self.0.changed.send_replace(());
    }

    /// Ends the reservation if it belongs to this namespace.
    pub(crate) fn keep_for_nobody(&self, namespace: &Namespace) {
        let mut books = self.books();
        if books
            .kept
            .as_ref()
            .is_some_and(|kept| kept.namespace == *namespace)
        {
            books.kept = None;
            drop(books);
            self.0.changed.send_replace(());
        }
    }

    /// Returns the class with a reservation, if it belongs to this namespace.
    #[must_use]
    pub fn kept_for(&self, namespace: &Namespace) -> Option<Class> {
        let books = self.books();
        let kept = books
            .kept
            .as_ref()
            .filter(|kept| kept.namespace == *namespace)?;
        Some(kept.class.clone())
    }

    /// Returns a receiver that is notified when capacity is returned or a reservation ends.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.0.changed.subscribe()
    }

    fn hold(&self, amount: Amount, spell: u64) -> Hold {
        Hold {
            room: self.clone(),
            amount,
            spell,
        }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        (self.0.books.lock()).expect("no code panics while it holds this lock")
    }
}

impl Bounds {
    /// Returns the amount that one job of a class takes. A job larger than the total capacity takes
    /// all of it.
    fn need(&self, class: &Class) -> Amount {
        class.size().amount().plus(self.beyond).min(self.whole)
    }
}

impl Books {
    /// Returns the amount that jobs of a class may take now.
    fn open(&self, bounds: Bounds, namespace: &Namespace, class: &Class) -> Amount {
        let free = bounds.whole.less(self.taken);
        match &self.kept {
            Some(kept) if !self.keeps_for(namespace, class) => {
                free.min(bounds.whole.less(kept.need).less(kept.beside))
            }
            Some(_) | None => free,
        }
    }

    fn keeps_for(&self, namespace: &Namespace, class: &Class) -> bool {
        (self.kept.as_ref())
            .is_some_and(|kept| kept.namespace == *namespace && kept.class == *class)
    }

    /// Records the start of a job whose capacity is already taken. Returns the number of the
    /// reservation that it started under, or zero if there is none.
    fn began(&mut self, namespace: &Namespace, class: &Class, need: Amount) -> u64 {
        if self.keeps_for(namespace, class) {
            self.kept = None;
        }
        let Some(kept) = &mut self.kept else { return 0 };
        kept.beside = kept.beside.plus(need);
        self.spell
    }

    /// Records that a job returned its capacity.
    fn ended(&mut self, amount: Amount, spell: u64) {
        self.taken = self.taken.less(amount);
        if let Some(kept) = self.kept.as_mut().filter(|_| spell == self.spell) {
            kept.beside = kept.beside.less(amount);
        }
    }
}

impl Hold {
    /// Replaces the reserved amount by the job's actual limits once they are known.
    pub fn correct(&mut self, memory: ByteCount, cpu: CpuMillis) {
        let Some(bounds) = self.room.0.bounds else {
            return;
        };
        let caps = Amount {
            memory_mib: memory.0.div_ceil(1 << 20),
            cpu_millis: cpu.0,
        };
        let found = caps.plus(bounds.beyond).min(bounds.whole);
        if found == self.amount {
            return;
        }
        let mut books = self.room.books();
        let spell = books.spell;
        books.ended(self.amount, self.spell);
        books.taken = books.taken.plus(found);
        if let Some(kept) = books.kept.as_mut().filter(|_| self.spell == spell) {
            kept.beside = kept.beside.plus(found);
        }
        drop(books);
        self.amount = found;
        self.room.0.changed.send_replace(());
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.amount != Amount::default() {
            self.room.books().ended(self.amount, self.spell);
            self.room.0.changed.send_replace(());
        }
    }
}

impl Offer {
    /// Splits off the capacity for one job that was claimed with this offer.
    pub(crate) fn hold(&mut self, class: &Class) -> Hold {
        let room = self.hold.room.clone();
        let Some(bounds) = room.0.bounds else {
            return room.hold(Amount::default(), 0);
        };
        let need = bounds.need(class).min(self.hold.amount);
        self.hold.amount = self.hold.amount.less(need);
        let spell = room.books().began(&self.namespace, class, need);
        room.hold(need, spell)
    }
}

#[cfg(test)]
mod tests;
