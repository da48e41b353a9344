//! The position of a container in the cgroup hierarchy, below which cells get their cgroups.

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use sandhog_protocol::frames::{CellCaps, CgroupSupport};

use super::group::{Group, Version};
use super::v1::V1Controllers;
use super::v2::V2Root;
use crate::cell::CellError;

/// Path at which containers see their cgroups.
const ROOT: &str = "/sys/fs/cgroup";

/// The container's own position in the cgroup hierarchy, below which cells get theirs.
#[derive(Debug)]
pub(in crate::cell) struct Hierarchy(HierarchyKind);

#[derive(Debug)]
enum HierarchyKind {
    V1(V1Controllers),
    V2(V2Root),
    None,
}

impl Hierarchy {
    /// Opens the hierarchy for writing. If that fails, returns a hierarchy without cgroups and the
    /// reason.
    pub(in crate::cell) fn open() -> (Self, Option<String>) {
        let unified = statfs(ROOT).is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC);
        let opened = if unified {
            V2Root::open(ROOT).map(HierarchyKind::V2)
        } else {
            V1Controllers::open(ROOT).map(HierarchyKind::V1)
        };
        let (kind, missing) = match opened {
            Ok(kind) => (kind, None),
            Err(error) => (
                HierarchyKind::None,
                Some(format!("no cgroup per cell: {}", error.line())),
            ),
        };
        (Self(kind), missing)
    }

    /// Returns the kind of cgroup that cells get.
    pub(in crate::cell) const fn support(&self) -> CgroupSupport {
        match self.0 {
            HierarchyKind::V1(_) => CgroupSupport::V1,
            HierarchyKind::V2(_) => CgroupSupport::V2,
            HierarchyKind::None => CgroupSupport::None,
        }
    }

    /// Returns the memory that the whole container holds, in bytes, without file cache, which the
    /// kernel can reclaim at any time. `None` if it cannot be determined.
    pub(in crate::cell) fn memory_in_use(&self) -> Option<u64> {
        let (held, cache) = match &self.0 {
            HierarchyKind::V1(controllers) => controllers.memory_in_use(),
            HierarchyKind::V2(root) => root.memory_in_use(),
            HierarchyKind::None => return None,
        }
        .ok()?;
        Some(held.saturating_sub(cache))
    }

    /// Makes a new cell's cgroup with its caps. `None` if the container has no cgroups.
    ///
    /// # Errors
    /// Fails if a directory cannot be made or a cap cannot be set. Nothing is left behind then.
    pub(in crate::cell) fn make(&self, caps: &CellCaps) -> Result<Option<Group>, CellError> {
        match &self.0 {
            HierarchyKind::V1(controllers) => controllers
                .make(caps)
                .map(|group| Some(Group(Version::V1(Box::new(group))))),
            HierarchyKind::V2(root) => root.make(caps).map(|group| Some(Group(Version::V2(group)))),
            HierarchyKind::None => Ok(None),
        }
    }
}
