//! File systems of a sandbox that a keeper makes in its container.
//!
//! The sandbox has the container's files, but its own processes, terminals, scratch directory and
//! cgroup. Its runner then makes the mounts of its cells, as in a container of its own. No part of
//! its /proc is hidden, because a runner removes the engine's mounts there, and each cell hides
//! more in a /proc of its own.

use std::path::Path;

use nix::mount::{MsFlags, mount};

use super::CellError;
use super::cgroup::SandboxCgroup;
use super::error::Step;
use super::mounts::{OWN_DIR, make_private, tmpfs};

const NOSUID_NODEV_NOEXEC: MsFlags = MsFlags::MS_NOSUID
    .union(MsFlags::MS_NODEV)
    .union(MsFlags::MS_NOEXEC);

/// Options of a sandbox's own scratch directory, as the worker sets them for a container.
const SCRATCH: &str = "size=4m,nr_inodes=256,mode=0700";

/// Options of a sandbox's own terminals, as engines set them.
const TERMINALS: &str = "newinstance,ptmxmode=0666,mode=0620,gid=5";

/// Directory of the terminals.
const TERMINALS_DIR: &str = "/dev/pts";

/// The mounts that each sandbox of a container gets.
#[derive(Debug)]
pub(crate) struct SandboxMounts {
    hidden_dir: String,
}

impl SandboxMounts {
    /// Stops the propagation of this container's mounts. Sandboxes do not see the directory
    /// `hidden_dir`.
    ///
    /// # Errors
    /// Fails if the kernel refuses to stop the propagation.
    pub(crate) fn of_container(hidden_dir: String) -> Result<Self, CellError> {
        make_private()?;
        Ok(Self { hidden_dir })
    }

    /// Makes the mounts, in the new namespaces of a sandbox.
    ///
    /// # Errors
    /// Fails if a mount is refused.
    pub(crate) fn make(&self, cgroup: Option<&SandboxCgroup>) -> Result<(), CellError> {
        if let Some(cgroup) = cgroup {
            cgroup.mount_as_root()?;
        }
        mount(
            Some("proc"),
            "/proc",
            Some("proc"),
            NOSUID_NODEV_NOEXEC,
            None::<&str>,
        )
        .step("mount a sandbox's /proc")?;
        if Path::new(TERMINALS_DIR).exists() {
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
            mount(
                Some("devpts"),
                TERMINALS_DIR,
                Some("devpts"),
                flags,
                Some(TERMINALS),
            )
            .step("mount a sandbox's /dev/pts")?;
        }
        let inert = NOSUID_NODEV_NOEXEC | MsFlags::MS_RDONLY;
        tmpfs(&self.hidden_dir, inert, "size=4k,mode=0555")?;
        tmpfs(OWN_DIR, NOSUID_NODEV_NOEXEC, SCRATCH)
    }
}
