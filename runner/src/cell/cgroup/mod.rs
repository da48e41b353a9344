//! Counting and capping a whole cell: one nested cgroup each, of whichever version the container has.
//!
//! Only the program and what it starts are in it; the cell's init is not, so it is neither throttled nor counted. The
//! directories are opened once, before /sys is hidden, and used by descriptor from then on.

mod dir;
mod v1;
mod v2;

use std::fs::File;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use sandhog_runner::protocol::{Caps, CgroupSupport};

use super::CellError;
use super::error::Step;

/// Where containers see their cgroups.
const ROOT: &str = "/sys/fs/cgroup";

/// The container's own place in the cgroup hierarchy, under which cells get theirs.
#[derive(Debug)]
pub(super) struct Hierarchy(Kind);

#[derive(Debug)]
enum Kind {
    V1(v1::Controllers),
    V2(v2::Root),
    None,
}

impl Hierarchy {
    /// Opens it for writing; where that cannot be, says why and goes on without.
    pub(super) fn open() -> (Self, Option<String>) {
        let unified = statfs(ROOT).is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC);
        let opened = if unified {
            v2::Root::open(ROOT).map(Kind::V2)
        } else {
            v1::Controllers::open(ROOT).map(Kind::V1)
        };
        let (kind, missing) = match opened {
            Ok(kind) => (kind, None),
            Err(error) => (
                Kind::None,
                Some(format!("no cgroup per cell: {}", error.line())),
            ),
        };
        (Self(kind), missing)
    }

    /// What cells get of it.
    pub(super) const fn support(&self) -> CgroupSupport {
        match self.0 {
            Kind::V1(_) => CgroupSupport::V1,
            Kind::V2(_) => CgroupSupport::V2,
            Kind::None => CgroupSupport::None,
        }
    }

    /// What the whole container holds, in bytes: file cache, which the kernel takes back when it likes, is left out.
    /// `None` where it cannot be told.
    pub(super) fn memory_in_use(&self) -> Option<u64> {
        let (held, cache) = match &self.0 {
            Kind::V1(controllers) => controllers.memory_in_use(),
            Kind::V2(root) => root.memory_in_use(),
            Kind::None => return None,
        }
        .ok()?;
        Some(held.saturating_sub(cache))
    }

    /// A new cell's cgroup, capped. `None` where there are none.
    ///
    /// # Errors
    /// When a directory cannot be made or a cap not be set; nothing is left behind then.
    pub(super) fn make(&self, caps: &Caps) -> Result<Option<Group>, CellError> {
        match &self.0 {
            Kind::V1(controllers) => controllers
                .make(caps)
                .map(|group| Some(Group(Version::V1(Box::new(group))))),
            Kind::V2(root) => root.make(caps).map(|group| Some(Group(Version::V2(group)))),
            Kind::None => Ok(None),
        }
    }
}

/// One cell's cgroup.
#[derive(Debug)]
pub(super) struct Group(Version);

#[derive(Debug)]
enum Version {
    /// One directory for each controller.
    V1(Box<v1::Group>),
    /// One directory.
    V2(v2::Group),
}

/// What a cgroup counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counts {
    /// CPU time, in microseconds.
    pub(super) cpu_us: u64,
    /// Processes that the kernel killed because memory was used up.
    pub(super) oom_kills: u64,
}

impl Group {
    /// Moves the calling process, which must have one thread, into it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn join(&self) -> Result<(), CellError> {
        self.entrances()?
            .iter()
            .try_for_each(|entrance| entrance.write_all_at(b"0", 0))
            .step("join the cell's cgroup")
    }

    /// By which a process can be forked into it, where the version has that: [`namespaces::fork_into`].
    ///
    /// [`namespaces::fork_into`]: crate::cell::namespaces::fork_into
    pub(super) fn birthplace(&self) -> Option<BorrowedFd<'_>> {
        match &self.0 {
            Version::V1(_) => None,
            Version::V2(group) => Some(group.birthplace()),
        }
    }

    /// Gives it other caps.
    ///
    /// # Errors
    /// When one cannot be set.
    pub(super) fn cap(&self, caps: &Caps) -> Result<(), CellError> {
        match &self.0 {
            Version::V1(group) => group.cap(caps),
            Version::V2(group) => group.cap(caps),
        }
    }

    /// Files by which a process joins it: it writes `0` to each.
    ///
    /// # Errors
    /// When one does not open.
    pub(super) fn entrances(&self) -> Result<Vec<File>, CellError> {
        match &self.0 {
            Version::V1(group) => group.entrances(),
            Version::V2(group) => group.entrances(),
        }
    }

    /// What [`Group::join`] needs to stay open.
    pub(super) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        match &self.0 {
            Version::V1(group) => group.descriptors(),
            Version::V2(group) => group.descriptors(),
        }
    }

    /// What it has counted so far.
    ///
    /// # Errors
    /// When a file does not read.
    pub(super) fn counts(&self) -> Result<Counts, CellError> {
        match &self.0 {
            Version::V1(group) => group.counts(),
            Version::V2(group) => group.counts(),
        }
    }

    /// Returns whether memory and the buffers of TCP and UDP, which version 1 counts apart, are
    /// above the cap together.
    ///
    /// # Errors
    /// Fails if a count cannot be read.
    pub(super) fn is_above_its_cap(&self) -> Result<bool, CellError> {
        match &self.0 {
            Version::V1(group) => group.is_above_its_cap(),
            // One count for both, and the kernel keeps it.
            Version::V2(_) => Ok(false),
        }
    }

    /// The most memory in use at once, in bytes.
    ///
    /// # Errors
    /// When the file does not read.
    pub(super) fn memory_peak(&self) -> Result<u64, CellError> {
        match &self.0 {
            Version::V1(group) => group.memory_peak(),
            Version::V2(group) => group.memory_peak(),
        }
    }

    /// Whether a process or thread was refused at the cap.
    ///
    /// # Errors
    /// When the file does not read.
    pub(super) fn pids_refused(&self) -> Result<bool, CellError> {
        match &self.0 {
            Version::V1(group) => group.pids_refused(),
            Version::V2(group) => group.pids_refused(),
        }
    }

    /// Lifts the CPU cap, so that processes that are to die get the time to.
    pub(super) fn unthrottle(&self) {
        match &self.0 {
            Version::V1(group) => group.unthrottle(),
            Version::V2(group) => group.unthrottle(),
        }
    }

    /// Removes it; whether it is gone. Processes that are just dying get a moment to.
    pub(super) fn remove(self) -> bool {
        match self.0 {
            Version::V1(group) => group.remove(),
            Version::V2(group) => group.remove(),
        }
    }
}
