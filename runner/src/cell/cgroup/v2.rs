//! Cgroup version 2: one directory with all controllers.
//!
//! A cgroup that delegates controllers may hold no process itself, so the runner first moves to a
//! leaf of its own.

use std::cell::Cell;
use std::fs::File;
use std::os::fd::BorrowedFd;

use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};

use sandhog_protocol::frames::CellCaps;

use super::counts::Counts;
use super::cpu_quota::{PERIOD_US, cpu_quota_us};
use super::dir::{Child, Dir, keyed, number, read};
use crate::cell::CellError;

/// Name of the runner's own leaf.
const LEAF: &str = "runner";

/// The container's own directory.
#[derive(Debug)]
pub(super) struct V2Root {
    dir: Dir,
    /// Keeps the leaf, which is removed when this value is dropped.
    _leaf: Child,
}

impl V2Root {
    /// Makes the directory writable, moves the runner to the leaf and delegates the controllers.
    ///
    /// # Errors
    /// Fails if the container has no cgroup namespace of its own, or lacks a controller.
    pub(super) fn open(path: &str) -> Result<Self, CellError> {
        let flags = MsFlags::MS_REMOUNT
            | MsFlags::MS_BIND
            | MsFlags::MS_NOSUID
            | MsFlags::MS_NODEV
            | MsFlags::MS_NOEXEC;
        mount(None::<&str>, path, None::<&str>, flags, None::<&str>)
            .map_err(|errno| CellError::new(format!("make {path} writable"), errno))?;
        let dir = Dir::open(path)?;
        let leaf = dir.child(LEAF)?;
        leaf.dir.set("cgroup.procs", "0")?;
        dir.set("cgroup.subtree_control", "+memory +pids +cpu")?;
        Ok(Self { dir, _leaf: leaf })
    }

    /// Makes and removes one directory.
    ///
    /// # Errors
    /// Fails if the kernel refuses.
    pub(super) fn try_dir(&self) -> Result<(), CellError> {
        self.dir.make_cell_dir().map(drop)
    }

    /// Returns the memory that the whole container holds, and the part of it that is file cache.
    ///
    /// # Errors
    /// Fails if a file cannot be read.
    pub(super) fn memory_in_use(&self) -> Result<(u64, u64), CellError> {
        self.dir.v2_memory_in_use()
    }

    /// Makes a cell's directory with its caps.
    ///
    /// # Errors
    /// Fails if the directory cannot be made or a cap cannot be set.
    pub(super) fn make(&self, caps: &CellCaps) -> Result<V2Group, CellError> {
        let child = self.dir.make_cell_dir()?;
        let dir = &child.dir;
        if dir.has("memory.swap.max") {
            dir.set("memory.swap.max", "0")?;
        }
        // The kernel kills the whole tree together. If it is too old for that, the runner does it.
        if dir.has("memory.oom.group") {
            dir.set("memory.oom.group", "1")?;
        }
        let group = V2Group::of(child)?;
        group.cap(caps)?;
        Ok(group)
    }
}

/// A cell's directory.
#[derive(Debug)]
pub(super) struct V2Group {
    child: Child,
    stat: File,
    events: File,
    /// Memory in use now, if the kernel does not record its peak (before Linux 5.19).
    current: Option<File>,
    /// Highest value of `current` seen so far, in bytes.
    most: Cell<u64>,
}

impl V2Group {
    fn of(child: Child) -> Result<Self, CellError> {
        let open = |name| child.dir.file(name, OFlag::O_RDONLY);
        let current = if child.dir.has("memory.peak") {
            None
        } else {
            Some(open("memory.current")?)
        };
        Ok(Self {
            stat: open("cpu.stat")?,
            events: open("memory.events")?,
            current,
            most: Cell::new(0),
            child,
        })
    }

    pub(super) fn cap(&self, caps: &CellCaps) -> Result<(), CellError> {
        let dir = &self.child.dir;
        dir.set("memory.max", &caps.memory_bytes.to_string())?;
        dir.set("pids.max", &caps.pids.to_string())?;
        let quota = cpu_quota_us(caps.cpu_millis);
        dir.set("cpu.max", &format!("{quota} {PERIOD_US}"))
    }

    pub(super) fn clone_target(&self) -> BorrowedFd<'_> {
        self.child.dir.as_fd()
    }

    pub(super) fn join_files(&self) -> Result<Vec<File>, CellError> {
        let procs = self.child.dir.file("cgroup.procs", OFlag::O_WRONLY)?;
        Ok(vec![procs])
    }

    pub(super) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.clone_target()]
    }

    pub(super) fn counts(&self) -> Result<Counts, CellError> {
        if let Some(current) = &self.current {
            self.most.set(self.most.get().max(number(&read(current)?)?));
        }
        Ok(Counts {
            cpu_us: keyed(&read(&self.stat)?, "usage_usec").unwrap_or(0),
            oom_kills: keyed(&read(&self.events)?, "oom_kill").unwrap_or(0),
        })
    }

    pub(super) fn memory_peak(&self) -> Result<u64, CellError> {
        let dir = &self.child.dir;
        if self.current.is_none() {
            return dir.number("memory.peak");
        }
        // If the cap was ever reached, it is the peak, however short that moment was. Otherwise the
        // highest value seen is the best estimate.
        if keyed(&read(&self.events)?, "max").unwrap_or(0) > 0 {
            return dir.number("memory.max");
        }
        Ok(self.most.get())
    }

    pub(super) fn pids_refused(&self) -> Result<bool, CellError> {
        Ok(self.child.dir.keyed("pids.events", "max")? > 0)
    }

    pub(super) fn unthrottle(&self) {
        // This only speeds up the end. After a failure the processes end a little later.
        drop(self.child.dir.set("cpu.max", "max"));
    }

    pub(super) fn remove(self) -> bool {
        drop((self.stat, self.events, self.current));
        self.child.remove()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::write;

    use super::*;

    #[test]
    fn without_a_peak_the_most_that_was_seen_counts() {
        let place = std::env::temp_dir().join(format!("cgroup-{}", std::process::id()));
        std::fs::create_dir_all(&place).unwrap();
        let child = Dir::open(place.to_str().unwrap())
            .and_then(|dir| dir.child("cell"))
            .unwrap();
        let set = |name: &str, text: &str| write(place.join("cell").join(name), text);
        set("cpu.stat", "usage_usec 7\n").unwrap();
        set("memory.events", "low 0\nmax 0\noom_kill 0\n").unwrap();
        set("memory.current", "0\n").unwrap();
        set("memory.max", "100\n").unwrap();
        let group = V2Group::of(child).unwrap();
        for now in ["30", "50", "20"] {
            set("memory.current", now).unwrap();
            group.counts().unwrap();
        }
        assert_eq!(group.memory_peak(), Ok(50), "seen in between");
        set("memory.events", "low 0\nmax 3\noom_kill 1\n").unwrap();
        assert_eq!(
            group.memory_peak(),
            Ok(100),
            "the peak at the cap was not sampled"
        );

        let V2Group { child, .. } = group;
        set("memory.peak", "70\n").unwrap();
        let group = V2Group::of(child).unwrap();
        group.counts().unwrap();
        assert_eq!(group.memory_peak(), Ok(70), "the kernel's own");
        std::fs::remove_dir_all(&place).unwrap();
    }
}
