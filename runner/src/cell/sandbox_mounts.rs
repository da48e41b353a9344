//! File systems of a sandbox that a keeper makes in its container.
//!
//! The sandbox has the container's files, but its own processes, terminals, scratch directory and
//! cgroup. The paths below /proc that the engine hides from the container are hidden from it too.
//! Its runner then makes the mounts of its cells, as in a container of its own.

use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

use super::CellError;
use super::cgroup::SandboxCgroup;
use super::error::Step;
use super::mounts::{OWN_DIR, cover, make_private, read_only, tmpfs};

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
    masks: Vec<Mask>,
    hidden_dir: String,
}

/// A path below /proc that the engine protects.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mask {
    path: String,
    kind: MaskKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MaskKind {
    /// The path can be read and not written.
    ReadOnly,
    /// An empty directory, or a file that is always empty, hides the path.
    Hidden,
}

impl SandboxMounts {
    /// Reads the mounts of this container, and stops their propagation. Sandboxes do not see the
    /// directory `hidden_dir`.
    ///
    /// # Errors
    /// Fails if the mount table cannot be read, or the kernel refuses to stop the propagation.
    pub(crate) fn of_container(hidden_dir: String) -> Result<Self, CellError> {
        make_private()?;
        let table = std::fs::read_to_string("/proc/self/mountinfo").step("read the mount table")?;
        Ok(Self {
            masks: masks(&table),
            hidden_dir,
        })
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
        self.masks.iter().try_for_each(Mask::apply)?;
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

impl Mask {
    fn apply(&self) -> Result<(), CellError> {
        let path = self.path.as_str();
        let done = match self.kind {
            MaskKind::ReadOnly => read_only(path),
            MaskKind::Hidden if Path::new(path).is_dir() => {
                let inert = NOSUID_NODEV_NOEXEC | MsFlags::MS_RDONLY;
                tmpfs(path, inert, "size=4k,mode=0555")
            }
            MaskKind::Hidden => cover("/dev/null", &[path]),
        };
        match done {
            // The kernel makes some of these files only while a module is loaded.
            Err(error) if error.errno == Errno::ENOENT && !Path::new(path).exists() => Ok(()),
            other => other,
        }
    }
}

/// Returns the paths below /proc that are protected in a mount table.
fn masks(table: &str) -> Vec<Mask> {
    table
        .lines()
        .filter_map(|line| {
            let (mount, file_system) = line.split_once(" - ")?;
            let mut fields = mount.split(' ').skip(4);
            let (path, options) = (fields.next()?, fields.next()?);
            path.strip_prefix("/proc/")?;
            let kind = file_system.split(' ').next()?;
            let kind = match kind {
                "proc" if options.split(',').any(|option| option == "ro") => MaskKind::ReadOnly,
                // A part of /proc that is mounted again and stays writable is no mask.
                "proc" => return None,
                _ => MaskKind::Hidden,
            };
            Some(Mask {
                path: path.to_owned(),
                kind,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_read_from_the_mount_table() {
        let table = "\
            10 1 0:50 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw\n\
            11 10 0:50 /bus /proc/bus ro,nosuid,nodev,noexec,relatime - proc proc rw\n\
            12 10 0:60 / /proc/acpi ro,relatime - tmpfs tmpfs ro,size=0k\n\
            13 10 0:61 /null /proc/kcore rw,nosuid - tmpfs tmpfs rw,size=65536k\n\
            14 10 0:50 /sys /proc/sys rw,nosuid - proc proc rw\n\
            15 1 0:62 / /tmp rw master:3 - tmpfs tmpfs rw\n\
            nonsense\n";
        let mask = |path: &str, kind| Mask {
            path: path.to_owned(),
            kind,
        };
        assert_eq!(
            masks(table),
            [
                mask("/proc/bus", MaskKind::ReadOnly),
                mask("/proc/acpi", MaskKind::Hidden),
                mask("/proc/kcore", MaskKind::Hidden),
            ]
        );
    }
}
