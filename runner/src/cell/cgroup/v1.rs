//! Version 1: one directory for each of the controllers memory, pids, cpu and cpuacct.

use std::fs::File;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};

use sandhog_runner::protocol::Caps;

use super::Counts;
use super::dir::{Child, Dir, keyed, number, read};
use crate::cell::CellError;

/// The period over which CPU time is shared out, in microseconds; the kernel's default.
const PERIOD_US: u64 = 100_000;

/// The least CPU time in one period that the kernel takes.
const LEAST_QUOTA_US: u64 = 1000;

/// The container's own directories.
#[derive(Debug)]
pub(super) struct Controllers {
    memory: Dir,
    pids: Dir,
    cpu: Dir,
    cpuacct: Dir,
    /// Whether cpu and cpuacct are one directory.
    joint: bool,
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
        let joint = cpu.has("cpuacct.usage");
        Ok(Self {
            memory,
            pids,
            cpu,
            cpuacct,
            joint,
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
    pub(super) fn make(&self, name: &str, caps: &Caps) -> Result<Group, CellError> {
        let memory = self.memory.child(name)?;
        let pids = self.pids.child(name)?;
        let cpu = self.cpu.child(name)?;
        let cpuacct = if self.joint {
            None
        } else {
            Some(self.cpuacct.child(name)?)
        };

        let swap_counted = memory.dir.has("memory.memsw.limit_in_bytes");
        if !swap_counted {
            memory.dir.set("memory.swappiness", "0")?;
        }
        let usage = cpuacct.as_ref().map_or(&cpu.dir, |child| &child.dir);
        let group = Group {
            usage: usage.file("cpuacct.usage", OFlag::O_RDONLY)?,
            oom: memory.dir.file("memory.oom_control", OFlag::O_RDONLY)?,
            swap_counted,
            memory,
            pids,
            cpu,
            cpuacct,
        };
        cap_cpu_period(&group.cpu.dir)?;
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

fn cap_cpu_period(cpu: &Dir) -> Result<(), CellError> {
    cpu.set("cpu.cfs_period_us", &PERIOD_US.to_string())
}

fn cap_cpu(cpu: &Dir, caps: &Caps) -> Result<(), CellError> {
    let quota = (caps.cpu_millis.saturating_mul(PERIOD_US) / 1000).max(LEAST_QUOTA_US);
    match cpu.set("cpu.cfs_quota_us", &quota.to_string()) {
        // The container's own cap is tighter: let that one stand alone.
        Err(error) if error.errno == Errno::EINVAL => cpu.set("cpu.cfs_quota_us", "-1"),
        other => other,
    }
}

/// A cell's directories.
#[derive(Debug)]
pub(super) struct Group {
    memory: Child,
    pids: Child,
    cpu: Child,
    cpuacct: Option<Child>,
    usage: File,
    oom: File,
    /// Whether memory and swap have a cap together.
    swap_counted: bool,
}

impl Group {
    fn children(&self) -> impl Iterator<Item = &Child> {
        [&self.memory, &self.pids, &self.cpu]
            .into_iter()
            .chain(self.cpuacct.as_ref())
    }

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
        self.pids.dir.set("pids.max", &caps.pids.to_string())?;
        cap_cpu(&self.cpu.dir, caps)
    }

    pub(super) fn entrances(&self) -> Result<Vec<File>, CellError> {
        // A thread that moves itself by this file is spared the machine-wide lock that `cgroup.procs` takes: 0.2 ms a
        // controller were measured instead of 4 to 20.
        self.children()
            .map(|child| child.dir.file("tasks", OFlag::O_WRONLY))
            .collect()
    }

    pub(super) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.children().map(|child| child.dir.as_fd()).collect()
    }

    pub(super) fn counts(&self) -> Result<Counts, CellError> {
        Ok(Counts {
            cpu_us: number(&read(&self.usage)?)? / 1000,
            oom_kills: keyed(&read(&self.oom)?, "oom_kill").unwrap_or(0),
        })
    }

    pub(super) fn memory_peak(&self) -> Result<u64, CellError> {
        self.memory.dir.number("memory.max_usage_in_bytes")
    }

    pub(super) fn pids_refused(&self) -> Result<bool, CellError> {
        Ok(self.pids.dir.keyed("pids.events", "max")? > 0)
    }

    pub(super) fn unthrottle(&self) {
        // Only speeds the end up: a failure leaves the processes to die a little later.
        drop(self.cpu.dir.set("cpu.cfs_quota_us", "-1"));
    }

    pub(super) fn remove(self) -> bool {
        let Self {
            memory,
            pids,
            cpu,
            cpuacct,
            ..
        } = self;
        // Every one is tried, also after one that stays.
        let gone: Vec<bool> = [Some(memory), Some(pids), Some(cpu), cpuacct]
            .into_iter()
            .flatten()
            .map(Child::remove)
            .collect();
        gone.iter().all(|gone| *gone)
    }
}
