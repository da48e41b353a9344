//! Version 1: one directory for each of the controllers memory, pids, cpu and cpuacct.

mod meter;

use std::fs::File;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};

use sandhog_runner::protocol::Caps;

use self::meter::{KeptMeters, Meter, Parents};
use super::Counts;
use super::dir::{Child, Dir, keyed, read};
use crate::cell::CellError;

/// The container's own directories.
#[derive(Debug)]
pub(super) struct Controllers {
    memory: Dir,
    /// Whether memory and swap have a cap together.
    swap_counted: bool,
    parents: Parents,
    kept: KeptMeters,
}

impl Controllers {
    /// Makes them writable and opens them.
    ///
    /// # Errors
    /// When one is missing or cannot be made writable.
    pub(super) fn open(root: &str) -> Result<Self, CellError> {
        let open = |name: &str| -> Result<Dir, CellError> {
            let path = format!("{root}/{name}");
            // Engines link cpu and cpuacct to their common directory.
            let path = std::fs::canonicalize(&path).map_or(path, |path| path.display().to_string());
            make_writable(&path)?;
            Dir::open(&path)
        };
        let (memory, pids) = (open("memory")?, open("pids")?);
        let (cpu, cpuacct) = (open("cpu")?, open("cpuacct")?);
        let cpuacct = (!cpu.has("cpuacct.usage")).then_some(cpuacct);
        Ok(Self {
            swap_counted: memory.has("memory.memsw.limit_in_bytes"),
            memory,
            parents: Parents { pids, cpu, cpuacct },
            kept: KeptMeters::default(),
        })
    }

    /// What the whole container holds, and how much of that is file cache.
    ///
    /// # Errors
    /// When a file does not read.
    pub(super) fn memory_in_use(&self) -> Result<(u64, u64), CellError> {
        let held = self.memory.number("memory.usage_in_bytes")?;
        let keys = ["total_inactive_file", "total_active_file"];
        Ok((held, self.memory.sum("memory.stat", &keys)?))
    }

    /// A cell's directories, capped.
    ///
    /// # Errors
    /// When one cannot be made or a cap not be set.
    pub(super) fn make(&self, caps: &Caps) -> Result<Group, CellError> {
        let memory = self.memory.child_for_a_cell()?;
        if !self.swap_counted {
            memory.dir.set("memory.swappiness", "0")?;
        }
        let group = Group {
            oom: memory.dir.file("memory.oom_control", OFlag::O_RDONLY)?,
            swap_counted: self.swap_counted,
            memory,
            meter: self.kept.take(&self.parents)?,
            kept: self.kept.clone(),
        };
        group.cap(caps)?;
        Ok(group)
    }
}

fn make_writable(path: &str) -> Result<(), CellError> {
    let flags = MsFlags::MS_REMOUNT
        | MsFlags::MS_BIND
        | MsFlags::MS_NOSUID
        | MsFlags::MS_NODEV
        | MsFlags::MS_NOEXEC;
    mount(None::<&str>, path, None::<&str>, flags, None::<&str>)
        .map_err(|errno| CellError::new(format!("make {path} writable"), errno))
}

/// A cell's directories.
#[derive(Debug)]
pub(super) struct Group {
    memory: Child,
    oom: File,
    /// Whether memory and swap have a cap together.
    swap_counted: bool,
    /// All but the memory.
    meter: Meter,
    /// Where that goes when the cell is over.
    kept: KeptMeters,
}

impl Group {
    pub(super) fn cap(&self, caps: &Caps) -> Result<(), CellError> {
        let memory = &self.memory.dir;
        let most = caps.memory_bytes.to_string();
        let both = || {
            if self.swap_counted {
                memory.set("memory.memsw.limit_in_bytes", &most)
            } else {
                Ok(())
            }
        };
        // Memory alone may never be more than both together, so what grows, grows there first.
        match memory.set("memory.limit_in_bytes", &most) {
            Err(error) if error.errno == Errno::EINVAL && self.swap_counted => {
                both()?;
                memory.set("memory.limit_in_bytes", &most)?;
            }
            done => {
                done?;
                both()?;
            }
        }
        self.meter.cap(caps)
    }

    pub(super) fn entrances(&self) -> Result<Vec<File>, CellError> {
        // A thread that moves itself by this file is spared the machine-wide lock that `cgroup.procs` takes: 0.2 ms a
        // controller were measured instead of 4 to 20.
        let mut all = vec![self.memory.dir.file("tasks", OFlag::O_WRONLY)?];
        all.extend(self.meter.tasks()?);
        Ok(all)
    }

    pub(super) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let memory = [self.memory.dir.as_fd()];
        memory.into_iter().chain(self.meter.descriptors()).collect()
    }

    pub(super) fn counts(&self) -> Result<Counts, CellError> {
        Ok(Counts {
            cpu_us: self.meter.cpu_us()?,
            oom_kills: keyed(&read(&self.oom)?, "oom_kill").unwrap_or(0),
        })
    }

    pub(super) fn memory_peak(&self) -> Result<u64, CellError> {
        self.memory.dir.number("memory.max_usage_in_bytes")
    }

    pub(super) fn pids_refused(&self) -> Result<bool, CellError> {
        self.meter.refused()
    }

    pub(super) fn unthrottle(&self) {
        // Only speeds the end up: a failure leaves the processes to die a little later.
        drop(self.meter.unthrottle());
    }

    pub(super) fn remove(self) -> bool {
        drop(self.oom);
        // Both, also when one stays.
        let gone = self.memory.remove();
        self.kept.keep(self.meter) && gone
    }
}
