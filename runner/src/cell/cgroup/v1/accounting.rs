//! Counters and caps of a cell except for its memory: its directories of pids, cpu and cpuacct.
//!
//! The directories are reused for the next cell of the container, because making and removing them
//! takes more than a tenth of the runner's work for a cell. The only state that they keep of a
//! finished cell are counters that only grow. So the next cell counts from their current values,
//! and its caps are set anew. A memory directory is not reused: file cache and the kernel's own
//! reserves stay charged to it and would count for the next cell.
//!
//! The kernel is asked whether a process is left in a directory when the directory is taken for the
//! next cell, not when it is put away. A process that is slow to exit therefore counts as present.
//! A directory that still has a process is never emptied for reuse.

use std::cell::RefCell;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use sandhog_protocol::frames::CellCaps;

use crate::cell::CellError;
use crate::cell::cgroup::cpu_quota::{PERIOD_US, cpu_quota_us};
use crate::cell::cgroup::dir::{Child, Dir, keyed, number, read};
use crate::cell::error::Step;

/// Largest number of accountings in the pool: one of the cell that ends, one of the standby cell
/// beside it.
const MAX_POOLED_ACCOUNTINGS: usize = 2;

/// The container's own directories of these controllers.
#[derive(Debug)]
pub(super) struct Parents {
    pub(super) pids: Dir,
    pub(super) cpu: Dir,
    /// `None` if cpu and cpuacct are one directory.
    pub(super) cpuacct: Option<Dir>,
}

/// Accountings of finished cells.
#[derive(Debug, Default, Clone)]
pub(super) struct AccountingPool(Rc<RefCell<Vec<Accounting>>>);

impl AccountingPool {
    /// Returns an accounting of the pool for the next cell, equivalent to a new one except for its
    /// caps. Makes a new accounting if the pool is empty.
    ///
    /// # Errors
    /// Fails if an accounting cannot be made.
    pub(super) fn take(&self, parents: &Parents) -> Result<Accounting, CellError> {
        let pooled = self.0.borrow_mut().pop();
        match pooled.and_then(Accounting::reset) {
            Some(accounting) => Ok(accounting),
            None => Accounting::make(parents),
        }
    }

    /// Keeps the accounting of a cell whose processes are all dead, or removes it if there is no
    /// room. Returns whether the accounting is in the pool or gone.
    pub(super) fn put(&self, accounting: Accounting) -> bool {
        let mut pool = self.0.borrow_mut();
        if pool.len() < MAX_POOLED_ACCOUNTINGS {
            pool.push(accounting);
            return true;
        }
        drop(pool);
        accounting.remove()
    }
}

/// One cell's directories of these controllers.
#[derive(Debug)]
pub(super) struct Accounting {
    pids: Child,
    cpu: Child,
    cpuacct: Option<Child>,
    /// Files by which a process joins each directory.
    tasks: Vec<File>,
    most_pids: File,
    pids_now: File,
    pids_events: File,
    quota: File,
    usage: File,
    /// Values of the counters when the cell began.
    before: GrowingCounters,
}

/// Values that an accounting has counted since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct GrowingCounters {
    cpu_ns: u64,
    refused: u64,
}

impl Accounting {
    fn make(parents: &Parents) -> Result<Self, CellError> {
        let pids = parents.pids.make_cell_dir()?;
        let cpu = parents.cpu.make_cell_dir()?;
        let cpuacct = parents.cpuacct.as_ref().map(|dir| dir.make_cell_dir());
        let cpuacct = cpuacct.transpose()?;
        let usage = cpuacct.as_ref().map_or(&cpu.dir, |child| &child.dir);
        cpu.dir.set("cpu.cfs_period_us", &PERIOD_US.to_string())?;
        let tasks = [Some(&pids), Some(&cpu), cpuacct.as_ref()]
            .into_iter()
            .flatten()
            .map(|child| child.dir.file("tasks", OFlag::O_WRONLY))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            tasks,
            most_pids: pids.dir.file("pids.max", OFlag::O_WRONLY)?,
            pids_now: pids.dir.file("pids.current", OFlag::O_RDONLY)?,
            pids_events: pids.dir.file("pids.events", OFlag::O_RDONLY)?,
            quota: cpu.dir.file("cpu.cfs_quota_us", OFlag::O_WRONLY)?,
            usage: usage.file("cpuacct.usage", OFlag::O_RDONLY)?,
            before: GrowingCounters::default(),
            pids,
            cpu,
            cpuacct,
        })
    }

    /// Makes the accounting count from here on. If the kernel does not confirm that no process is
    /// left in the accounting, removes it if possible and returns `None`.
    fn reset(mut self) -> Option<Self> {
        let now = read(&self.pids_now).and_then(|text| number(&text));
        match (now, self.counted()) {
            (Ok(0), Ok(counted)) => {
                self.before = counted;
                Some(self)
            }
            _ => {
                self.remove();
                None
            }
        }
    }

    fn counted(&self) -> Result<GrowingCounters, CellError> {
        Ok(GrowingCounters {
            cpu_ns: number(&read(&self.usage)?)?,
            refused: keyed(&read(&self.pids_events)?, "max").unwrap_or(0),
        })
    }

    /// Sets the caps of the cell. Its CPU time begins with a full period, regardless of the last
    /// cell's use.
    pub(super) fn cap(&self, caps: &CellCaps) -> Result<(), CellError> {
        let most = caps.pids.to_string();
        let done = self.most_pids.write_all_at(most.as_bytes(), 0);
        done.step("cap the cell's processes")?;
        let quota = cpu_quota_us(caps.cpu_millis);
        match self.set_quota(&quota.to_string()) {
            // The container's own cap is lower, so it applies alone.
            Err(error) if error.errno == Errno::EINVAL => self.set_quota("-1"),
            other => other,
        }
    }

    /// Lifts the cap on CPU time.
    pub(super) fn unthrottle(&self) -> Result<(), CellError> {
        self.set_quota("-1")
    }

    fn set_quota(&self, value: &str) -> Result<(), CellError> {
        let done = self.quota.write_all_at(value.as_bytes(), 0);
        done.step("cap the cell's CPU time")
    }

    /// Copies the files by which a process joins the cell.
    pub(super) fn tasks(&self) -> Result<Vec<File>, CellError> {
        let copies = self.tasks.iter().map(File::try_clone);
        copies
            .collect::<Result<_, _>>()
            .step("duplicate the files that join the cell's cgroup")
    }

    /// Returns the descriptors that must stay open for [`Accounting::tasks`].
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.tasks.iter().map(AsFd::as_fd)
    }

    /// Returns the CPU time of the cell, in microseconds.
    pub(super) fn cpu_us(&self) -> Result<u64, CellError> {
        let used = number(&read(&self.usage)?)?;
        Ok(used.saturating_sub(self.before.cpu_ns) / 1000)
    }

    /// Returns whether a process or thread of the cell was refused at the cap.
    pub(super) fn refused(&self) -> Result<bool, CellError> {
        Ok(self.counted()?.refused > self.before.refused)
    }

    /// Removes the accounting. Returns whether it is gone.
    fn remove(self) -> bool {
        drop((self.tasks, self.most_pids, self.quota));
        drop((self.pids_now, self.pids_events, self.usage));
        // Every removal is tried, even after one fails.
        let gone: Vec<bool> = [Some(self.pids), Some(self.cpu), self.cpuacct]
            .into_iter()
            .flatten()
            .map(Child::remove)
            .collect();
        gone.iter().all(|gone| *gone)
    }
}
