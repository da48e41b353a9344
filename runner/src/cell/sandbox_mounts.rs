//! File systems of a sandbox that a keeper makes in its container.
//!
//! The sandbox has the container's files, but its own processes, terminals, scratch directory and
//! cgroup. It sees the files of the image through overlays of its own, because a program can watch
//! (`inotify`) and lock (`flock`) a file that it can only read, and both apply to the inode. Its
//! runner then makes the mounts of its cells, as in a container of its own. No part of its /proc is
//! hidden, because a runner removes the engine's mounts there, and each cell hides more in a /proc
//! of its own.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;

use super::CellError;
use super::cgroup::SandboxCgroup;
use super::error::Step;
use super::mounts::{EMPTY_DIR, OWN_DIR, make_private, tmpfs};

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
    /// Top directories of the image that each sandbox sees through an overlay of its own.
    image_dirs: Vec<String>,
    /// Mounts of the engine below these directories, which the overlays would hide.
    kept_mounts: Vec<String>,
    hidden_dir: String,
}

impl SandboxMounts {
    /// Reads the mounts of this container, and stops their propagation. Sandboxes do not see the
    /// directory `hidden_dir`. Makes and removes the overlays of one sandbox. Sandboxes have those
    /// that the kernel permits; the reason for the others is returned too.
    ///
    /// # Errors
    /// Fails if the mount table or the root directory cannot be read, or the kernel refuses to stop
    /// the propagation.
    pub(crate) fn of_container(hidden_dir: String) -> Result<(Self, Option<String>), CellError> {
        make_private()?;
        let table = fs::read_to_string("/proc/self/mountinfo").step("read the mount table")?;
        let mut image_dirs = image_dirs().step("list the top directories of the image")?;
        let mut kept_mounts = mounts_below(&image_dirs, &table);
        kept_mounts.retain(|path| !Path::new(path).starts_with(&hidden_dir));
        // The table has an escape in place of some characters. Such a directory has no overlay.
        image_dirs.retain(|dir| {
            let mut below = kept_mounts.iter();
            !below.any(|path| path.contains('\\') && Path::new(path).starts_with(dir))
        });
        let missing = keep_possible(&mut image_dirs);
        kept_mounts.retain(|path| {
            let mut dirs = image_dirs.iter();
            dirs.any(|dir| Path::new(path).starts_with(dir))
        });
        let mounts = Self {
            image_dirs,
            kept_mounts,
            hidden_dir,
        };
        Ok((mounts, missing))
    }

    /// Makes the mounts, in the new namespaces of a sandbox.
    ///
    /// # Errors
    /// Fails if a mount is refused.
    pub(crate) fn make(&self, cgroup: Option<&SandboxCgroup>) -> Result<(), CellError> {
        if let Some(cgroup) = cgroup {
            cgroup.mount_as_root()?;
        }
        // Before the sandbox's own scratch directory hides the empty layer.
        self.make_overlays()?;
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

    /// Makes the overlays of the image, and the engine's mounts on them again.
    fn make_overlays(&self) -> Result<(), CellError> {
        let open = |path: &String| {
            let opened = open(
                path.as_str(),
                OFlag::O_PATH | OFlag::O_CLOEXEC,
                Mode::empty(),
            );
            opened.map_err(|errno| CellError::new(format!("open the mount {path}"), errno))
        };
        let opened: Vec<OwnedFd> = self
            .kept_mounts
            .iter()
            .map(open)
            .collect::<Result<_, CellError>>()?;
        self.image_dirs.iter().try_for_each(|dir| overlay(dir))?;
        for (file, path) in opened.iter().zip(&self.kept_mounts) {
            let from = format!("/proc/self/fd/{}", file.as_raw_fd());
            mount(
                Some(from.as_str()),
                path.as_str(),
                None::<&str>,
                MsFlags::MS_BIND,
                None::<&str>,
            )
            .map_err(|errno| CellError::new(format!("mount {path} again"), errno))?;
        }
        Ok(())
    }
}

/// Returns the top directories that have files of the image: those on the file system of the root
/// directory that are not empty, without `/run`, which is hidden from programs. The kernel's syntax
/// for layers excludes some names.
fn image_dirs() -> io::Result<Vec<String>> {
    let root = fs::metadata("/")?.dev();
    let mut found = Vec::new();
    for entry in fs::read_dir("/")? {
        let entry = entry?;
        // Links are not followed, because their targets are listed too.
        let metadata = entry.metadata()?;
        let Ok(path) = entry.path().into_os_string().into_string() else {
            continue;
        };
        let is_of_image = metadata.is_dir() && metadata.dev() == root && path != "/run";
        if is_of_image && !path.contains([':', ',', '\\']) && !is_empty(&path) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Returns the mounts below these directories in a mount table.
fn mounts_below(dirs: &[String], table: &str) -> Vec<String> {
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    let below = points.filter(|point| {
        let mut dirs = dirs.iter();
        dirs.any(|dir| dir != point && Path::new(point).starts_with(dir))
    });
    below.map(str::to_owned).collect()
}

/// Returns whether a directory has no entries that this process can list.
fn is_empty(path: &str) -> bool {
    fs::read_dir(path).map_or(true, |mut entries| entries.next().is_none())
}

/// Keeps the directories of which overlays can be made. Returns the reason for the others.
fn keep_possible(image_dirs: &mut Vec<String>) -> Option<String> {
    let mut refused = Vec::new();
    image_dirs.retain(|dir| match try_overlay(dir) {
        Ok(()) => true,
        Err(error) => {
            refused.push(error.line());
            false
        }
    });
    let reasons = refused.join(", ");
    (!refused.is_empty()).then(|| {
        format!(
            "no overlay per sandbox of a part of the image: {reasons}; programs can watch and lock \
             files in it that other sandboxes use"
        )
    })
}

/// Makes and removes an overlay, and makes the empty directory among its layers.
fn try_overlay(dir: &str) -> Result<(), CellError> {
    match fs::create_dir(EMPTY_DIR) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(error).step("make an empty directory for overlays");
        }
        Ok(()) | Err(_) => {}
    }
    overlay(dir)?;
    umount2(dir, MntFlags::MNT_DETACH).step("remove an overlay that was a trial")
}

/// Mounts a read-only overlay of a directory over it. The kernel requires two layers if none can be
/// written; the other one is empty.
fn overlay(dir: &str) -> Result<(), CellError> {
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let layers = format!("lowerdir={EMPTY_DIR}:{dir}");
    mount(
        Some("overlay"),
        dir,
        Some("overlay"),
        flags,
        Some(layers.as_str()),
    )
    .map_err(|errno| CellError::new(format!("mount an overlay of {dir}"), errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_below_the_directories_of_the_image_are_found() {
        let table = "\
            10 1 0:50 / / rw - overlay overlay rw\n\
            11 10 0:51 / /etc/hosts rw - ext4 /dev/a rw\n\
            12 10 0:52 / /etcetera rw - tmpfs tmpfs rw\n\
            13 10 0:53 / /usr rw - tmpfs tmpfs rw\n\
            14 10 0:54 / /usr/a/b rw - tmpfs tmpfs rw\n\
            nonsense\n";
        let dirs = ["/etc", "/usr"].map(str::to_owned);
        assert_eq!(mounts_below(&dirs, table), ["/etc/hosts", "/usr/a/b"]);
    }
}
