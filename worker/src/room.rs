//! How much memory and CPU this worker has for jobs, and for whom it keeps some.
//!
//! A job takes its room when its ticket is claimed and gives it back when nothing of it is left, so that a worker never
//! holds a job that would have to wait for another one's end. A worker that keeps room for a job takes no others but
//! those that fit beside it, counted from when it began to: then the job fits once those that ran before have ended.
//!
//! It refuses to know containers: what they hold beyond their jobs is an amount added to each job. A worker without
//! containers and without a budget has room for everything.

use std::sync::{Arc, Mutex, MutexGuard};

use sandhog_common::class::Class;
use sandhog_common::id::Namespace;
use sandhog_common::queue::Claiming;
use sandhog_common::size::{Amount, Size};
use sandhog_common::units::{ByteCount, CpuMillis};
use tokio::sync::watch;

/// A worker's room. Cheap to clone; clones are the same room.
#[derive(Debug, Clone)]
pub struct Room(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// What there is, and what each job takes beyond its caps; none when there is no bound.
    bounds: Option<Bounds>,
    books: Mutex<Books>,
    /// Told when room is given back or no longer kept.
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
    /// Counts the times that room was kept, so that a job knows whether it began during the present one.
    spell: u64,
}

/// Room that is kept for a job.
#[derive(Debug)]
struct Kept {
    namespace: Namespace,
    class: Class,
    need: Amount,
    /// What jobs take that began since.
    beside: Amount,
}

/// The room of one job; given back when dropped.
#[derive(Debug)]
pub struct Hold {
    room: Room,
    amount: Amount,
    spell: u64,
}

/// Room set aside for jobs that are about to be claimed; what is left of it is given back when dropped.
#[derive(Debug)]
pub(crate) struct Offer {
    hold: Hold,
    namespace: Namespace,
    /// What may be claimed with it.
    pub(crate) claiming: Claiming,
}

impl Room {
    /// Room for everything.
    #[must_use]
    pub fn unbounded() -> Self {
        Self::with(None)
    }

    /// So much memory and CPU, each of them without a bound when zero. Each job takes `beyond` of memory more than its
    /// caps, for its container.
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

    /// The largest job it takes: what there is, rounded up as jobs are, so that one that asks for all of it fits. None
    /// when there is no bound.
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

    /// Whether jobs of this class fit when nothing else runs. Ordinary ones always do: where there is less than they
    /// take, they get what there is.
    #[must_use]
    pub fn could_hold(&self, class: &Class) -> bool {
        let size = class.size();
        size == Size::ORDINARY || self.largest().is_none_or(|largest| largest.covers(size))
    }

    /// How many jobs of this class fit now.
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

    /// Takes the room of one job, if there is as much. The job for which room was kept ends that.
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

    /// Sets room aside for at most `most` jobs of some of these classes, with what the jobs gave back that are over.
    /// The class for which room is kept goes first, alone, once it fits.
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
        // What ended may have given back more than is set aside.
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

    /// Keeps room for one job of this class, unless some is kept for another namespace's already.
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

    /// Keeps room for nobody of this namespace any more.
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

    /// For which class room is kept, if for one of this namespace.
    #[must_use]
    pub fn kept_for(&self, namespace: &Namespace) -> Option<Class> {
        let books = self.books();
        let kept = books
            .kept
            .as_ref()
            .filter(|kept| kept.namespace == *namespace)?;
        Some(kept.class.clone())
    }

    /// Tells when room was given back or is no longer kept.
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
    /// What one job of a class takes: one that takes more than there is takes all of it.
    fn need(&self, class: &Class) -> Amount {
        class.size().amount().plus(self.beyond).min(self.whole)
    }
}

impl Books {
    /// How much jobs of a class may take now.
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

    /// A job begins whose room is taken. Answers during which spell, zero being none.
    fn began(&mut self, namespace: &Namespace, class: &Class, need: Amount) -> u64 {
        if self.keeps_for(namespace, class) {
            self.kept = None;
        }
        let Some(kept) = &mut self.kept else { return 0 };
        kept.beside = kept.beside.plus(need);
        self.spell
    }

    /// Room is given back.
    fn ended(&mut self, amount: Amount, spell: u64) {
        self.taken = self.taken.less(amount);
        if let Some(kept) = self.kept.as_mut().filter(|_| spell == self.spell) {
            kept.beside = kept.beside.less(amount);
        }
    }
}

impl Hold {
    /// The job's caps turned out to be these.
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
    /// The room of one job that was claimed with it.
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
