//! Cgroup version 1: one directory for each of the controllers memory, pids, cpu and cpuacct.

mod meter;

use std::cell::Cell;
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

/// File with the cap on the buffers of TCP and UDP sockets. The kernel counts these separately from
/// all other memory, and only if this cap is set.
const SOCKETS_CAP: &str = "memory.kmem.tcp.limit_in_bytes";

/// Bytes of socket buffers below which they are not added to the other memory while a cell runs.
const SOCKETS_ADDED_FROM: u64 = 1 << 20;

/// The container's own directories.
#[derive(Debug)]
pub(super) struct Controllers {
    memory: Dir,
    counted: Counted,
    parents: Parents,
    kept: KeptMeters,
}

impl Controllers {
    /// Makes the directories writable and opens them.
    ///
    /// # Errors
    /// Fails if a directory is missing or cannot be made writable.
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
        let counted = Counted {
            swap: memory.has("memory.memsw.limit_in_bytes"),
            sockets: memory.has(SOCKETS_CAP),
        };
        if counted.sockets {
            // This caps the container as a whole. It also keeps the kernel from patching its own
            // code for each cell: the kernel does that for the first cgroup that counts sockets,
            // and again after the last one.
            let most = memory.number("memory.limit_in_bytes")?;
            memory.set(SOCKETS_CAP, &most.to_string())?;
        }
        Ok(Self {
            counted,
            memory,
            parents: Parents { pids, cpu, cpuacct },
            kept: KeptMeters::default(),
        })
    }

    /// Returns the memory that the whole container holds, and the part of it that is file cache.
    ///
    /// # Errors
    /// Fails if a file cannot be read.
    pub(super) fn memory_in_use(&self) -> Result<(u64, u64), CellError> {
        let held = self.memory.number("memory.usage_in_bytes")?;
        let keys = ["total_inactive_file", "total_active_file"];
        Ok((held, self.memory.sum("memory.stat", &keys)?))
    }

    /// Makes a cell's directories with its caps.
    ///
    /// # Errors
    /// Fails if a directory cannot be made or a cap cannot be set.
    pub(super) fn make(&self, caps: &Caps) -> Result<Group, CellError> {
        let memory = self.memory.child_for_a_cell()?;
        if !self.counted.swap {
            memory.dir.set("memory.swappiness", "0")?;
        }
        let group = Group {
            oom: memory.dir.file("memory.oom_control", OFlag::O_RDONLY)?,
            counted: self.counted,
            most: Cell::new(u64::MAX),
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

/// Kinds of memory that this kernel counts.
#[derive(Debug, Clone, Copy)]
struct Counted {
    /// Memory and swap together.
    swap: bool,
    /// The buffers of TCP and UDP sockets.
    sockets: bool,
}

/// A cell's directories.
#[derive(Debug)]
pub(super) struct Group {
    memory: Child,
    oom: File,
    counted: Counted,
    /// The cell's cap on memory, in bytes.
    most: Cell<u64>,
    /// The directories of all controllers except memory.
    meter: Meter,
    /// Store to which the meter goes when the cell ends.
    kept: KeptMeters,
}

impl Group {
    pub(super) fn cap(&self, caps: &Caps) -> Result<(), CellError> {
        let memory = &self.memory.dir;
        let most = caps.memory_bytes.to_string();
        let both = || {
            if self.counted.swap {
                memory.set("memory.memsw.limit_in_bytes", &most)
            } else {
                Ok(())
            }
        };
        // The cap on memory alone may never exceed the cap on memory and swap, so a cap that grows
        // must grow first for both together.
        match memory.set("memory.limit_in_bytes", &most) {
            Err(error) if error.errno == Errno::EINVAL && self.counted.swap => {
                both()?;
                memory.set("memory.limit_in_bytes", &most)?;
            }
            done => {
                done?;
                both()?;
            }
        }
        if self.counted.sockets {
            memory.set(SOCKETS_CAP, &most)?;
        }
        self.most.set(caps.memory_bytes);
        self.meter.cap(caps)
    }

    pub(super) fn entrances(&self) -> Result<Vec<File>, CellError> {
        // A thread that moves itself by this file avoids the machine-wide lock that `cgroup.procs`
        // takes. The move was measured at 0.2 ms per controller instead of 4 to 20 ms.
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

    /// Compares the sum of both counters with the cap. The kernel keeps each of them below the cap,
    /// but not their sum.
    pub(super) fn is_above_its_cap(&self) -> Result<bool, CellError> {
        let memory = &self.memory.dir;
        if !self.counted.sockets {
            return Ok(false);
        }
        let sockets = memory.number("memory.kmem.tcp.usage_in_bytes")?;
        if sockets < SOCKETS_ADDED_FROM {
            return Ok(false);
        }
        let held = memory.number("memory.usage_in_bytes")?;
        // The kernel reclaims file cache before it refuses any memory.
        let cache = memory.sum("memory.stat", &["inactive_file", "active_file"])?;
        Ok(held.saturating_sub(cache) + sockets > self.most.get())
    }

    /// Returns the sum of both peaks. They need not have occurred at the same time, so the sum may
    /// be higher than the real peak but is never lower.
    pub(super) fn memory_peak(&self) -> Result<u64, CellError> {
        let memory = &self.memory.dir;
        let sockets = if self.counted.sockets {
            memory.number("memory.kmem.tcp.max_usage_in_bytes")?
        } else {
            0
        };
        Ok(memory.number("memory.max_usage_in_bytes")? + sockets)
    }

    pub(super) fn pids_refused(&self) -> Result<bool, CellError> {
        self.meter.refused()
    }

    pub(super) fn unthrottle(&self) {
        // This only speeds up the end. After a failure the processes end a little later.
        drop(self.meter.unthrottle());
    }

    pub(super) fn remove(self) -> bool {
        drop(self.oom);
        // Both removals are tried, even if the first one fails.
        let gone = self.memory.remove();
        self.kept.keep(self.meter) && gone
    }
}
