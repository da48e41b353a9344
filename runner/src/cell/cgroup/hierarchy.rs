//! The position of a container in the cgroup hierarchy, below which cells get their cgroups.

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use sandhog_protocol::frames::{CellCaps, CgroupSupport};
use sandhog_protocol::install::ALLOW_NO_CGROUP_VARIABLE;

use super::group::{Group, Version};
use super::v1::V1Controllers;
use super::v2::V2Root;
use crate::cell::CellError;

/// Path at which containers see their cgroups.
pub(super) const ROOT: &str = "/sys/fs/cgroup";

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
    /// reason. Unless that `is_tried`, makes and removes one directory, because a container may
    /// have cgroups that it can open and not divide.
    ///
    /// # Errors
    /// Fails if the kernel refuses that directory and the operator does not allow cells without
    /// cgroups; see [`may_lack_cgroups`].
    pub(in crate::cell) fn open(is_tried: bool) -> Result<(Self, Option<String>), CellError> {
        let opened = if is_unified() {
            V2Root::open(ROOT).map(HierarchyKind::V2)
        } else {
            V1Controllers::open(ROOT).map(HierarchyKind::V1)
        };
        let none = |error: &CellError| {
            let missing = format!("no cgroup per cell: {}", error.line());
            (Self(HierarchyKind::None), Some(missing))
        };
        let kind = match opened {
            Ok(kind) => kind,
            Err(error) => return Ok(none(&error)),
        };
        let tried = if is_tried { Ok(()) } else { kind.try_dir() };
        match tried {
            Ok(()) => Ok((Self(kind), None)),
            Err(error) if may_lack_cgroups() => Ok(none(&error)),
            Err(error) => Err(required(&error)),
        }
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

impl HierarchyKind {
    /// Makes and removes one directory.
    fn try_dir(&self) -> Result<(), CellError> {
        match self {
            Self::V1(controllers) => controllers.try_dir(),
            Self::V2(root) => root.try_dir(),
            Self::None => Ok(()),
        }
    }
}

/// Returns whether the container sees one hierarchy for all controllers: cgroup version 2.
pub(super) fn is_unified() -> bool {
    statfs(ROOT).is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC)
}

/// Returns whether the operator allows this container to run programs without cgroups, where the
/// kernel refuses to make them.
#[expect(
    clippy::disallowed_methods,
    reason = "the engine sets the variable in the container; the runner has no configuration"
)]
pub(in crate::cell) fn may_lack_cgroups() -> bool {
    std::env::var_os(ALLOW_NO_CGROUP_VARIABLE).is_some_and(|value| value == "1")
}

/// Adds the allowed alternative to the error of a container in which no cgroup can be made.
pub(in crate::cell) fn required(error: &CellError) -> CellError {
    let step = format!(
        "{}; delegate the container's cgroup to its root, or allow programs without cgroups with \
         {ALLOW_NO_CGROUP_VARIABLE}=1",
        error.step
    );
    CellError::new(step, error.errno)
}
