//! A cgroup for each sandbox of a keeper, below the cgroup of the keeper's container.
//!
//! A sandbox's runner sees this cgroup as the root of the hierarchy, and makes the cgroups of its
//! cells below it.

use std::fs;
use std::io::Read;
use std::os::fd::BorrowedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::sys::eventfd::{EfdFlags, EventFd};

use sandhog_protocol::frames::CgroupSupport;
use sandhog_protocol::keeper::Open;

use super::cpu_quota::{PERIOD_US, cpu_quota_us};
use super::dir::{Child, Dir, keyed, read};
use super::hierarchy::{ROOT, is_unified, may_lack_cgroups, required};
use super::v1::make_writable;
use crate::cell::CellError;
use crate::cell::error::Step;

/// Name of the keeper's own leaf under cgroup v2, where a cgroup with children holds no process.
const LEAF: &str = "keeper";

/// Highest number of a sandbox's directory.
const LAST_SANDBOX: u32 = 2047;

/// Deepest directory that a runner makes below its own: a cell, or the leaf of the runner.
const MAX_DEPTH: u32 = 4;

/// A memory cap of cgroup v1 from here on stands for no cap: the kernel rounds its largest number
/// down to a page.
const UNLIMITED_FROM: u64 = 1 << 62;

/// File that caps the buffers of TCP sockets under cgroup v1, where the kernel counts them.
const SOCKETS_CAP: &str = "memory.kmem.tcp.limit_in_bytes";

/// Caps of the cgroup that the keeper makes as a test.
const TRIAL_CAPS: Open = Open {
    memory_bytes: Open::MIN_MEMORY,
    cpu_millis: 1000,
    pids: Open::MIN_PIDS,
    gpus: Vec::new(),
    zygote: None,
};

/// The cgroup of the keeper's container.
#[derive(Debug)]
pub(crate) struct SandboxCgroups(Kind);

#[derive(Debug)]
enum Kind {
    /// One directory for each controller.
    V1(V1Roots),
    /// One directory, and the keeper's leaf, which is kept while the keeper runs.
    V2 {
        dir: Dir,
        leaf: Child,
    },
    None,
}

#[derive(Debug)]
struct V1Roots {
    memory: Dir,
    pids: Dir,
    cpu: Dir,
    /// `None` if cpu and cpuacct are one directory.
    cpuacct: Option<Dir>,
}

/// The caps of the keeper's container. A cap that is absent is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ContainerCaps {
    /// Memory, in bytes.
    pub(crate) memory_bytes: Option<u64>,
    /// CPU share, in thousandths of a core.
    pub(crate) cpu_millis: Option<u64>,
    /// Processes and threads.
    pub(crate) pids: Option<u64>,
}

impl SandboxCgroups {
    /// Opens the container's cgroup for writing, and makes and removes one sandbox's. If that
    /// fails and the operator allows it, returns no cgroups and the reason.
    ///
    /// # Errors
    /// Fails if no cgroup can be made and the operator does not allow sandboxes without one.
    pub(crate) fn open() -> Result<(Self, Option<String>), CellError> {
        let opened = if is_unified() { open_v2() } else { open_v1() };
        let tried = opened.and_then(|kind| {
            // Dropping the cgroup removes it again.
            kind.make(&TRIAL_CAPS)?;
            Ok(kind)
        });
        match tried {
            Ok(kind) => Ok((Self(kind), None)),
            Err(error) if may_lack_cgroups() => {
                let missing = format!("no cgroup per sandbox: {}", error.line());
                Ok((Self(Kind::None), Some(missing)))
            }
            Err(error) => Err(required(&error)),
        }
    }

    /// Returns the kind of cgroup that sandboxes get.
    pub(crate) const fn support(&self) -> CgroupSupport {
        match self.0 {
            Kind::V1(_) => CgroupSupport::V1,
            Kind::V2 { .. } => CgroupSupport::V2,
            Kind::None => CgroupSupport::None,
        }
    }

    /// Returns the memory that the whole container holds, in bytes, without file cache. `None` if
    /// it cannot be determined.
    pub(crate) fn memory_in_use(&self) -> Option<u64> {
        let (held, cache) = match &self.0 {
            Kind::V1(roots) => roots.memory.v1_memory_in_use(),
            Kind::V2 { dir, .. } => dir.v2_memory_in_use(),
            Kind::None => return None,
        }
        .ok()?;
        Some(held.saturating_sub(cache))
    }

    /// Returns the part of it that belongs to the keeper and its zygote. `None` if it cannot be
    /// determined.
    pub(crate) fn own_memory(&self) -> Option<u64> {
        match &self.0 {
            // Without the prefix `total_`, these keys leave out the directories below.
            Kind::V1(roots) => roots.memory.sum("memory.stat", &["rss", "shmem"]).ok(),
            Kind::V2 { leaf, .. } => {
                let (held, cache) = leaf.dir.v2_memory_in_use().ok()?;
                Some(held.saturating_sub(cache))
            }
            Kind::None => None,
        }
    }

    /// Returns the caps of the container.
    pub(crate) fn container_caps(&self) -> ContainerCaps {
        let text = |dir: &Dir, name: &str| {
            let file = dir.file(name, OFlag::O_RDONLY).ok()?;
            read(&file).ok()
        };
        match &self.0 {
            Kind::V1(V1Roots {
                memory, pids, cpu, ..
            }) => {
                let memory = memory.number("memory.limit_in_bytes").ok();
                let quota = text(cpu, "cpu.cfs_quota_us").unwrap_or_default();
                let period = text(cpu, "cpu.cfs_period_us").unwrap_or_default();
                ContainerCaps {
                    memory_bytes: memory.filter(|bytes| *bytes < UNLIMITED_FROM),
                    cpu_millis: cpu_millis(&format!("{} {}", quota.trim(), period.trim())),
                    pids: pids.number("pids.max").ok(),
                }
            }
            Kind::V2 { dir, .. } => ContainerCaps {
                memory_bytes: dir.number("memory.max").ok(),
                cpu_millis: cpu_millis(&text(dir, "cpu.max").unwrap_or_default()),
                pids: dir.number("pids.max").ok(),
            },
            Kind::None => ContainerCaps::default(),
        }
    }

    /// Makes a sandbox's cgroup with its caps. `None` if the container has no cgroups.
    ///
    /// # Errors
    /// Fails if a directory cannot be made or a cap cannot be set. Nothing is left behind then.
    pub(crate) fn make(&self, caps: &Open) -> Result<Option<SandboxCgroup>, CellError> {
        self.0.make(caps)
    }
}

impl Kind {
    /// Makes a sandbox's cgroup with its caps. `None` without cgroups.
    fn make(&self, caps: &Open) -> Result<Option<SandboxCgroup>, CellError> {
        match self {
            Self::V1(roots) => roots.make(caps).map(Some),
            Self::V2 { dir, .. } => make_v2(dir, caps).map(Some),
            Self::None => Ok(None),
        }
    }
}

fn open_v1() -> Result<Kind, CellError> {
    let open = |name: &str| -> Result<Dir, CellError> {
        let path = format!("{ROOT}/{name}");
        // Engines link cpu and cpuacct to their common directory.
        let path = fs::canonicalize(&path).map_or(path, |path| path.display().to_string());
        make_writable(&path)?;
        Dir::open(&path)
    };
    let (memory, pids) = (open("memory")?, open("pids")?);
    let (cpu, cpuacct) = (open("cpu")?, open("cpuacct")?);
    if memory.has(SOCKETS_CAP) {
        // The kernel patches its own code for the first cgroup that counts sockets, and again after
        // the last one. The keeper's cap keeps it from doing so for each sandbox. In a user
        // namespace the file may belong to the machine's root; then each sandbox costs more.
        let most = memory.number("memory.limit_in_bytes")?;
        match memory.set(SOCKETS_CAP, &most.to_string()) {
            Err(error) if error.errno == Errno::EACCES => {}
            other => other?,
        }
    }
    let cpuacct = (!cpu.has("cpuacct.usage")).then_some(cpuacct);
    Ok(Kind::V1(V1Roots {
        memory,
        pids,
        cpu,
        cpuacct,
    }))
}

fn open_v2() -> Result<Kind, CellError> {
    make_writable(ROOT)?;
    let dir = Dir::open(ROOT)?;
    let leaf = match dir.child(LEAF) {
        Err(error) if error.errno == Errno::EEXIST => dir.existing_child(LEAF)?,
        made => made?,
    };
    leaf.dir.set("cgroup.procs", "0")?;
    dir.set("cgroup.subtree_control", "+memory +pids +cpu")?;
    Ok(Kind::V2 { dir, leaf })
}

/// Makes the directory of a sandbox under the first free name.
fn make_dir(parent: &Dir) -> Result<Child, CellError> {
    parent.numbered_child("sbx", LAST_SANDBOX)
}

/// Parses a quota and its period. Returns thousandths of a core, or `None` without a cap.
fn cpu_millis(text: &str) -> Option<u64> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period): (u64, u64) = (quota.parse().ok()?, period.parse().ok()?);
    quota.saturating_mul(1000).checked_div(period)
}

impl V1Roots {
    fn make(&self, caps: &Open) -> Result<SandboxCgroup, CellError> {
        let memory = make_dir(&self.memory)?;
        let bytes = caps.memory_bytes.to_string();
        memory.dir.set("memory.limit_in_bytes", &bytes)?;
        if memory.dir.has("memory.memsw.limit_in_bytes") {
            memory.dir.set("memory.memsw.limit_in_bytes", &bytes)?;
        } else {
            memory.dir.set("memory.swappiness", "0")?;
        }
        let oom_count = watch_oom(&memory.dir).ok();
        let pids = make_dir(&self.pids)?;
        pids.dir.set("pids.max", &caps.pids.to_string())?;
        let cpu = make_dir(&self.cpu)?;
        cpu.dir.set("cpu.cfs_period_us", &PERIOD_US.to_string())?;
        match cpu.dir.set(
            "cpu.cfs_quota_us",
            &cpu_quota_us(caps.cpu_millis).to_string(),
        ) {
            // The container's own cap is lower, so it applies alone.
            Err(error) if error.errno == Errno::EINVAL => {}
            other => other?,
        }
        let cpuacct = self.cpuacct.as_ref().map(make_dir).transpose()?;
        let mut parts = vec![memory, pids, cpu];
        parts.extend(cpuacct);
        Ok(SandboxCgroup {
            unified: false,
            parts,
            oom_count,
        })
    }
}

fn make_v2(parent: &Dir, caps: &Open) -> Result<SandboxCgroup, CellError> {
    let child = make_dir(parent)?;
    let dir = &child.dir;
    if dir.has("memory.swap.max") {
        dir.set("memory.swap.max", "0")?;
    }
    dir.set("memory.max", &caps.memory_bytes.to_string())?;
    dir.set("pids.max", &caps.pids.to_string())?;
    dir.set(
        "cpu.max",
        &format!("{} {PERIOD_US}", cpu_quota_us(caps.cpu_millis)),
    )?;
    Ok(SandboxCgroup {
        unified: true,
        parts: vec![child],
        oom_count: None,
    })
}

/// Makes the kernel count each time that the memory of a cgroup v1, or of one above it, is used up.
/// The cgroup's own counter has only the processes that were killed in this very directory.
fn watch_oom(dir: &Dir) -> Result<EventFd, CellError> {
    use std::os::fd::AsRawFd;
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    let count = EventFd::from_flags(flags).step("make a counter of events")?;
    let control = dir.file("memory.oom_control", OFlag::O_RDONLY)?;
    let event = format!("{} {}", count.as_raw_fd(), control.as_raw_fd());
    dir.set("cgroup.event_control", &event)?;
    Ok(count)
}

/// The cgroup of a sandbox. Its directories are removed when this value is dropped, if no process
/// is left in them.
#[derive(Debug)]
pub(crate) struct SandboxCgroup {
    unified: bool,
    /// The directories: the only one, or one for each controller with memory first.
    parts: Vec<Child>,
    /// Counter of the times that memory was used up, if no file of the cgroup has it.
    oom_count: Option<EventFd>,
}

impl SandboxCgroup {
    /// Moves the calling process, which must have one thread, into the cgroup.
    ///
    /// # Errors
    /// Fails if the kernel refuses.
    pub(crate) fn join(&self) -> Result<(), CellError> {
        // Under version 1 a thread that moves itself by this file avoids a lock of the whole
        // machine.
        let file = if self.unified {
            "cgroup.procs"
        } else {
            "tasks"
        };
        let mut parts = self.parts.iter();
        parts.try_for_each(|part| part.dir.set(file, "0"))
    }

    /// Returns the directory into which a process can be forked. `None` under version 1.
    pub(crate) fn clone_target(&self) -> Option<BorrowedFd<'_>> {
        let only = self.parts.first().filter(|_| self.unified)?;
        Some(only.dir.as_fd())
    }

    /// Mounts the directories over those of the container, in this process's mount namespace.
    ///
    /// # Errors
    /// Fails if a mount is refused.
    pub(crate) fn mount_as_root(&self) -> Result<(), CellError> {
        for part in &self.parts {
            let (from, to) = (part.dir.path(), part.parent_path());
            mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>)
                .map_err(|errno| CellError::new(format!("mount {from} on {to}"), errno))?;
        }
        Ok(())
    }

    /// Returns whether memory was used up at the cap of the sandbox or of the container, and
    /// whether the kernel killed the runner for that.
    pub(crate) fn oom(&self) -> bool {
        let Some(memory) = self.parts.first().map(|part| &part.dir) else {
            return false;
        };
        if !self.unified {
            let counted = self.oom_count.as_ref();
            let counted = counted.is_some_and(|count| count.read().is_ok_and(|times| times > 0));
            return counted || memory.keyed("memory.oom_control", "oom_kill").unwrap_or(0) > 0;
        }
        let local = read_all(&format!("{}/memory.events.local", memory.path()));
        let runner = read_all(&format!("{}/runner/memory.events.local", memory.path()));
        let has = |text: &str, key| keyed(text, key).unwrap_or(0) > 0;
        has(&local, "oom") || has(&runner, "oom_kill")
    }

    /// Removes the cgroup and all cgroups below it. Returns whether it is gone. If not, a process
    /// is about to end, and the caller has to try again.
    pub(crate) fn remove(&mut self) -> bool {
        self.oom_count = None;
        self.parts.retain(|part| {
            remove_below(Path::new(part.dir.path()), MAX_DEPTH);
            !part.remove_now()
        });
        self.parts.is_empty()
    }
}

fn read_all(path: &str) -> String {
    let mut text = String::new();
    if let Ok(mut file) = fs::File::open(path) {
        // A file that cannot be read counts as empty.
        file.read_to_string(&mut text).ok();
    }
    text
}

/// Removes the directories below this one, as far as the kernel permits.
fn remove_below(dir: &Path, depth: u32) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if depth > 1 {
                remove_below(&entry.path(), depth - 1);
            }
            // A directory that stays is tried again with its parent.
            fs::remove_dir(entry.path()).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_read_with_its_period() {
        for (text, want) in [
            ("200000 100000", Some(2000)),
            ("50000 100000\n", Some(500)),
            ("max 100000", None),
            ("-1 100000", None),
            ("1 0", None),
            ("", None),
        ] {
            assert_eq!(cpu_millis(text), want, "{text:?}");
        }
    }
}
