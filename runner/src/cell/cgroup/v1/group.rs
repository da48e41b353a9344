//! The memory directory of a container and of a cell, together with their other directories.

use std::cell::Cell;
use std::fs::File;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};

use sandhog_protocol::frames::CellCaps;

use super::accounting::{Accounting, AccountingPool, Parents};
use crate::cell::CellError;
use crate::cell::cgroup::counts::Counts;
use crate::cell::cgroup::dir::{Child, Dir, keyed, read};

/// File with the cap on the buffers of TCP and UDP sockets. The kernel counts these separately from
/// all other memory, and only if this cap is set.
const SOCKETS_CAP: &str = "memory.kmem.tcp.limit_in_bytes";

/// Bytes of socket buffers below which they are not added to the other memory while a cell runs.
const SOCKETS_ADDED_FROM: u64 = 1 << 20;

/// The container's own directories.
#[derive(Debug)]
pub(in crate::cell::cgroup) struct V1Controllers {
    memory: Dir,
    counted: CountedMemory,
    parents: Parents,
    pool: AccountingPool,
}

impl V1Controllers {
    /// Makes the directories writable and opens them.
    ///
    /// # Errors
    /// Fails if a directory is missing or cannot be made writable.
    pub(in crate::cell::cgroup) fn open(root: &str) -> Result<Self, CellError> {
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
        let counted = CountedMemory {
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
            pool: AccountingPool::default(),
        })
    }

    /// Makes and removes one directory, of the controller for which the kernel does the least work.
    ///
    /// # Errors
    /// Fails if the kernel refuses.
    pub(in crate::cell::cgroup) fn try_dir(&self) -> Result<(), CellError> {
        self.parents.pids.make_cell_dir().map(drop)
    }

    /// Returns the memory that the whole container holds, and the part of it that is file cache.
    ///
    /// # Errors
    /// Fails if a file cannot be read.
    pub(in crate::cell::cgroup) fn memory_in_use(&self) -> Result<(u64, u64), CellError> {
        self.memory.v1_memory_in_use()
    }

    /// Makes a cell's directories with its caps.
    ///
    /// # Errors
    /// Fails if a directory cannot be made or a cap cannot be set.
    pub(in crate::cell::cgroup) fn make(&self, caps: &CellCaps) -> Result<V1Group, CellError> {
        let memory = self.memory.make_cell_dir()?;
        if !self.counted.swap {
            memory.dir.set("memory.swappiness", "0")?;
        }
        let group = V1Group {
            oom: memory.dir.file("memory.oom_control", OFlag::O_RDONLY)?,
            counted: self.counted,
            most: Cell::new(u64::MAX),
            memory,
            accounting: self.pool.take(&self.parents)?,
            pool: self.pool.clone(),
        };
        group.cap(caps)?;
        Ok(group)
    }
}

/// Makes the cgroup directory at this path writable, where the engine mounts it read-only.
///
/// # Errors
/// Fails if the kernel refuses.
pub(in crate::cell::cgroup) fn make_writable(path: &str) -> Result<(), CellError> {
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
struct CountedMemory {
    /// Memory and swap together.
    swap: bool,
    /// The buffers of TCP and UDP sockets.
    sockets: bool,
}

/// A cell's directories.
#[derive(Debug)]
pub(in crate::cell::cgroup) struct V1Group {
    memory: Child,
    oom: File,
    counted: CountedMemory,
    /// The cell's cap on memory, in bytes.
    most: Cell<u64>,
    /// The directories of all controllers except memory.
    accounting: Accounting,
    /// Store to which the accounting goes when the cell ends.
    pool: AccountingPool,
}

impl V1Group {
    pub(in crate::cell::cgroup) fn cap(&self, caps: &CellCaps) -> Result<(), CellError> {
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
        self.accounting.cap(caps)
    }

    pub(in crate::cell::cgroup) fn join_files(&self) -> Result<Vec<File>, CellError> {
        // A thread that moves itself by this file avoids the machine-wide lock that `cgroup.procs`
        // takes. The move was measured at 0.2 ms per controller instead of 4 to 20 ms.
        let mut all = vec![self.memory.dir.file("tasks", OFlag::O_WRONLY)?];
        all.extend(self.accounting.tasks()?);
        Ok(all)
    }

    pub(in crate::cell::cgroup) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let memory = [self.memory.dir.as_fd()];
        memory
            .into_iter()
            .chain(self.accounting.descriptors())
            .collect()
    }

    pub(in crate::cell::cgroup) fn counts(&self) -> Result<Counts, CellError> {
        Ok(Counts {
            cpu_us: self.accounting.cpu_us()?,
            oom_kills: keyed(&read(&self.oom)?, "oom_kill").unwrap_or(0),
        })
    }

    /// Compares the sum of both counters with the cap. The kernel keeps each of them below the cap,
    /// but not their sum.
    pub(in crate::cell::cgroup) fn is_above_its_cap(&self) -> Result<bool, CellError> {
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
    pub(in crate::cell::cgroup) fn memory_peak(&self) -> Result<u64, CellError> {
        let memory = &self.memory.dir;
        let sockets = if self.counted.sockets {
            memory.number("memory.kmem.tcp.max_usage_in_bytes")?
        } else {
            0
        };
        Ok(memory.number("memory.max_usage_in_bytes")? + sockets)
    }

    pub(in crate::cell::cgroup) fn pids_refused(&self) -> Result<bool, CellError> {
        self.accounting.refused()
    }

    pub(in crate::cell::cgroup) fn unthrottle(&self) {
        // This only speeds up the end. After a failure the processes end a little later.
        drop(self.accounting.unthrottle());
    }

    pub(in crate::cell::cgroup) fn remove(self) -> bool {
        drop(self.oom);
        // Both removals are tried, even if the first one fails.
        let gone = self.memory.remove();
        self.pool.put(self.accounting) && gone
    }
}
