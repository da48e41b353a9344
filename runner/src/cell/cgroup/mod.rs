//! Counters and caps of a whole cell. Each cell has one nested cgroup, of the version that the
//! container has.
//!
//! Only the program and the processes that it starts are in the cgroup. The cell's init is not, so
//! it is neither throttled nor counted. The runner opens the directories once, before it hides
//! /sys, and uses them by descriptor from then on.

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

/// Path at which containers see their cgroups.
const ROOT: &str = "/sys/fs/cgroup";

/// The container's own position in the cgroup hierarchy, below which cells get theirs.
#[derive(Debug)]
pub(super) struct Hierarchy(Kind);

#[derive(Debug)]
enum Kind {
    V1(v1::Controllers),
    V2(v2::Root),
    None,
}

impl Hierarchy {
    /// Opens the hierarchy for writing. If that fails, returns a hierarchy without cgroups and the
    /// reason.
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

    /// Returns the kind of cgroup that cells get.
    pub(super) const fn support(&self) -> CgroupSupport {
        match self.0 {
            Kind::V1(_) => CgroupSupport::V1,
            Kind::V2(_) => CgroupSupport::V2,
            Kind::None => CgroupSupport::None,
        }
    }

    /// Returns the memory that the whole container holds, in bytes, without file cache, which the
    /// kernel can reclaim at any time. `None` if it cannot be determined.
    pub(super) fn memory_in_use(&self) -> Option<u64> {
        let (held, cache) = match &self.0 {
            Kind::V1(controllers) => controllers.memory_in_use(),
            Kind::V2(root) => root.memory_in_use(),
            Kind::None => return None,
        }
        .ok()?;
        Some(held.saturating_sub(cache))
    }

    /// Makes a new cell's cgroup with its caps. `None` if the container has no cgroups.
    ///
    /// # Errors
    /// Fails if a directory cannot be made or a cap cannot be set. Nothing is left behind then.
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

/// Counters of a cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counts {
    /// CPU time, in microseconds.
    pub(super) cpu_us: u64,
    /// Processes that the kernel killed because memory was used up.
    pub(super) oom_kills: u64,
}

impl Group {
    /// Moves the calling process, which must have one thread, into the cgroup.
    ///
    /// # Errors
    /// Fails if the kernel refuses.
    pub(super) fn join(&self) -> Result<(), CellError> {
        self.entrances()?
            .iter()
            .try_for_each(|entrance| entrance.write_all_at(b"0", 0))
            .step("join the cell's cgroup")
    }

    /// Returns the directory into which a process can be forked by [`namespaces::fork_into`].
    /// `None` if the cgroup's version does not support that.
    ///
    /// [`namespaces::fork_into`]: crate::cell::namespaces::fork_into
    pub(super) fn birthplace(&self) -> Option<BorrowedFd<'_>> {
        match &self.0 {
            Version::V1(_) => None,
            Version::V2(group) => Some(group.birthplace()),
        }
    }

    /// Replaces the cgroup's caps.
    ///
    /// # Errors
    /// Fails if a cap cannot be set.
    pub(super) fn cap(&self, caps: &Caps) -> Result<(), CellError> {
        match &self.0 {
            Version::V1(group) => group.cap(caps),
            Version::V2(group) => group.cap(caps),
        }
    }

    /// Opens the files by which a process joins the cgroup: it writes `0` to each.
    ///
    /// # Errors
    /// Fails if a file cannot be opened.
    pub(super) fn entrances(&self) -> Result<Vec<File>, CellError> {
        match &self.0 {
            Version::V1(group) => group.entrances(),
            Version::V2(group) => group.entrances(),
        }
    }

    /// Returns the descriptors that must stay open for [`Group::join`].
    pub(super) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        match &self.0 {
            Version::V1(group) => group.descriptors(),
            Version::V2(group) => group.descriptors(),
        }
    }

    /// Returns the counters so far.
    ///
    /// # Errors
    /// Fails if a file cannot be read.
    pub(super) fn counts(&self) -> Result<Counts, CellError> {
        match &self.0 {
            Version::V1(group) => group.counts(),
            Version::V2(group) => group.counts(),
        }
    }

    /// Returns whether memory and the buffers of TCP and UDP together are above the cap. Version 1
    /// counts the two separately.
    ///
    /// # Errors
    /// Fails if a counter cannot be read.
    pub(super) fn is_above_its_cap(&self) -> Result<bool, CellError> {
        match &self.0 {
            Version::V1(group) => group.is_above_its_cap(),
            // Version 2 has one counter for both, and the kernel enforces its cap.
            Version::V2(_) => Ok(false),
        }
    }

    /// Returns the highest memory in use at one time, in bytes.
    ///
    /// # Errors
    /// Fails if the file cannot be read.
    pub(super) fn memory_peak(&self) -> Result<u64, CellError> {
        match &self.0 {
            Version::V1(group) => group.memory_peak(),
            Version::V2(group) => group.memory_peak(),
        }
    }

    /// Returns whether a process or thread was refused at the cap.
    ///
    /// # Errors
    /// Fails if the file cannot be read.
    pub(super) fn pids_refused(&self) -> Result<bool, CellError> {
        match &self.0 {
            Version::V1(group) => group.pids_refused(),
            Version::V2(group) => group.pids_refused(),
        }
    }

    /// Lifts the CPU cap, so that processes that must end get the CPU time for it.
    pub(super) fn unthrottle(&self) {
        match &self.0 {
            Version::V1(group) => group.unthrottle(),
            Version::V2(group) => group.unthrottle(),
        }
    }

    /// Removes the cgroup. Waits a moment for processes that are about to end. Returns whether it
    /// is gone.
    pub(super) fn remove(self) -> bool {
        match self.0 {
            Version::V1(group) => group.remove(),
            Version::V2(group) => group.remove(),
        }
    }
}
