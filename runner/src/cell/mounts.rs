//! File systems of a cell: its own /proc, its own scratch spaces, and nothing of the machine.
//!
//! [`hide_machine`] hides once the parts that are the same for all cells of a container.
//! [`make_cell_mounts`] makes the mounts that each cell needs afresh.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statvfs::statvfs;

use sandhog_protocol::frames::CellCaps;
use sandhog_protocol::install::WORK_DIR;

use super::CellError;
use super::cell_user::CellUser;
use super::error::Step;
use super::wall::Wall;

/// The runner's own small tmpfs. In a cell, the cell's own /tmp hides it.
pub(super) const OWN_DIR: &str = "/tmp";

/// Empty read-only directory that is mounted over directories to hide them.
pub(super) const EMPTY_DIR: &str = "/tmp/void";

/// Directory for a trial mount.
const TRIAL_DIR: &str = "/tmp/mark";

const NOSUID_NODEV: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV);
const NOSUID_NODEV_NOEXEC: MsFlags = NOSUID_NODEV.union(MsFlags::MS_NOEXEC);

/// Directories that reveal facts about the machine or keep files of an earlier cell.
const HIDDEN: [&str; 3] = ["/sys", "/run", "/dev/mqueue"];

/// Entries of /proc that reveal facts about the machine or act on it. The lists include the entries
/// that a container engine would only make read-only.
const HIDDEN_PROC_DIRS: [&str; 9] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/bus",
    "/proc/driver",
    "/proc/dynamic_debug",
    "/proc/fs",
    "/proc/irq",
    // Every user may write to it, and each trigger set there delays the death of its process by a
    // grace period.
    "/proc/pressure",
    "/proc/scsi",
];
const HIDDEN_PROC_FILES: [&str; 16] = [
    "/proc/cmdline",
    "/proc/config.gz",
    "/proc/diskstats",
    "/proc/interrupts",
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/key-users",
    "/proc/keys",
    "/proc/kmsg",
    "/proc/latency_stats",
    // A lock that belongs to no process is listed for the whole machine, with the inode number of
    // its file.
    "/proc/locks",
    "/proc/modules",
    "/proc/partitions",
    "/proc/sched_debug",
    "/proc/sysrq-trigger",
    "/proc/timer_list",
];

/// Scratch spaces that a program can fill.
const SCRATCH: [&str; 3] = [WORK_DIR, "/tmp", "/dev/shm"];

/// Number of scratch spaces, each with its own cap.
pub(super) const SCRATCH_SPACES: u32 = 3;

/// Largest number of terminals that the processes of a container may have open at once. Without
/// this cap, one container could take all terminals that the machine has for containers
/// (`kernel.pty.max`).
const MAX_TERMINALS: u32 = 32;

/// Size in bytes of a scratch space whose cap is left out for a test.
const UNCAPPED_SCRATCH_BYTES: u64 = 1 << 40;

/// Abilities of this kernel's mounts. gVisor lacks both.
#[derive(Debug, Clone, Copy)]
pub(super) struct MountAbilities {
    /// A tmpfs can cap its number of files.
    pub(super) inode_caps: bool,
    /// A part of a file system can be made read-only.
    pub(super) read_only_binds: bool,
}

/// Gives the runner a directory of its own and tests which abilities mounts have. If that
/// `is_tried`, they have all of them.
///
/// # Errors
/// Fails if the container lacks `SYS_ADMIN`, or a security module forbids mounts.
pub(super) fn make_own_dir(is_tried: bool) -> Result<MountAbilities, CellError> {
    detach_all(OWN_DIR);
    tmpfs(OWN_DIR, NOSUID_NODEV_NOEXEC, "size=1m,mode=0700")?;
    std::fs::create_dir(EMPTY_DIR).step("make the runner's empty directory")?;
    let inert = NOSUID_NODEV_NOEXEC | MsFlags::MS_RDONLY;
    let inode_caps = known(tmpfs(EMPTY_DIR, inert, "size=4k,nr_inodes=2,mode=0555"))?;
    if !inode_caps {
        tmpfs(EMPTY_DIR, inert, "size=4k,mode=0555")?;
    }
    Ok(MountAbilities {
        inode_caps,
        read_only_binds: is_tried || known(read_only("/proc/sys"))?,
    })
}

/// Returns whether the kernel supports an option. `EINVAL` means that it does not.
fn known(outcome: Result<(), CellError>) -> Result<bool, CellError> {
    match outcome {
        Ok(()) => Ok(true),
        Err(error) if error.errno == Errno::EINVAL => Ok(false),
        Err(error) => Err(error),
    }
}

/// Mounts a tmpfs on the directory that [`trial_mount_leaked`] checks, from a cell's namespaces.
/// Returns whether the mount succeeded.
pub(super) fn make_trial_mount() -> bool {
    tmpfs(TRIAL_DIR, NOSUID_NODEV_NOEXEC, "size=4k,mode=0500").is_ok()
}

/// Makes the directory for [`make_trial_mount`].
///
/// # Errors
/// Fails if the runner's own directory cannot be written.
pub(super) fn make_trial_dir() -> Result<(), CellError> {
    std::fs::create_dir(TRIAL_DIR).step("make a directory for a trial mount")
}

/// Returns whether the mount that a child made in its own mount namespace is visible here. If it
/// is, all mounts of a cell are.
///
/// # Errors
/// Fails if the metadata of a directory cannot be read.
pub(super) fn trial_mount_leaked() -> Result<bool, CellError> {
    let device = |path| std::fs::metadata(path).map(|found| found.dev());
    let trial = device(TRIAL_DIR).step("look for a trial mount")?;
    let own = device(OWN_DIR).step("look for a trial mount")?;
    Ok(trial != own)
}

/// Stops the propagation of mounts between this container, its cells and its host, for all
/// namespaces made from here on.
///
/// # Errors
/// Fails if the kernel refuses and some mount is shared.
pub(super) fn make_private() -> Result<(), CellError> {
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    match mount(None::<&str>, "/", None::<&str>, flags, None::<&str>) {
        // gVisor does not support propagation, so nothing is shared there.
        Err(Errno::EINVAL) if !any_shared() => Ok(()),
        other => other.step("make the mounts private"),
    }
}

/// Returns whether any mount is shared. Assumes so if the mount table cannot be read.
fn any_shared() -> bool {
    std::fs::read_to_string("/proc/self/mountinfo").map_or(true, |table| table.contains(" shared:"))
}

/// Hides the machine from every later cell. The files of /sys that the runner needs must already be
/// open.
///
/// # Errors
/// Fails if a mount is refused.
pub(super) fn hide_machine() -> Result<(), CellError> {
    for path in HIDDEN {
        detach_all(path);
    }
    cover(EMPTY_DIR, &HIDDEN)?;
    // Each cell mounts its own /proc over the whole of this one, so the mounts below are not
    // needed.
    detach_below("/proc/");
    Ok(())
}

/// Caps the terminals of this container. The container runs one job at a time, so the cap applies
/// to one cell.
///
/// # Errors
/// Fails if the kernel refuses.
pub(super) fn cap_terminals() -> Result<(), CellError> {
    if !Wall::Terminals.stands() {
        return Ok(());
    }
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    // A remount resets every option, so the engine's options are repeated.
    let options = format!("ptmxmode=0666,mode=0620,gid=5,max={MAX_TERMINALS}");
    mount(
        None::<&str>,
        "/dev/pts",
        None::<&str>,
        flags,
        Some(options.as_str()),
    )
    .step("cap the terminals")
}

/// Removes every mount on a directory, with all mounts below it. A cell copies every mount of the
/// container, and each copy takes time. The next mount on the directory hides any mount that cannot
/// be removed.
fn detach_all(path: &str) {
    while umount2(path, MntFlags::MNT_DETACH).is_ok() {}
}

/// Removes every mount somewhere below a directory, for the same reason.
fn detach_below(directory: &str) {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    // The fifth field is the mount point.
    let places = table.lines().filter_map(|line| line.split(' ').nth(4));
    for place in places.filter(|place| place.starts_with(directory)) {
        umount2(place, MntFlags::MNT_DETACH).ok();
    }
}

/// Makes the mounts of one cell, from inside it.
///
/// # Errors
/// Fails if a mount is refused.
pub(super) fn make_cell_mounts(
    caps: &CellCaps,
    user: CellUser,
    abilities: MountAbilities,
) -> Result<(), CellError> {
    mount_proc()?;
    // This step needs the runner's own directory, so it comes before the cell's /tmp hides that.
    if Wall::Masks.stands() {
        cover(EMPTY_DIR, &HIDDEN_PROC_DIRS)?;
        cover("/dev/null", &HIDDEN_PROC_FILES)?;
    }
    if abilities.read_only_binds {
        read_only("/proc/sys")?;
    }

    let bytes = if Wall::ScratchBytes.stands() {
        caps.scratch_bytes
    } else {
        UNCAPPED_SCRATCH_BYTES
    };
    let mut size = format!("size={bytes}");
    if abilities.inode_caps && Wall::ScratchFiles.stands() {
        // The root directory of the space counts too.
        size += &format!(",nr_inodes={}", caps.scratch_inodes.saturating_add(1));
    }
    let number = user.number();
    let owned = format!("{size},mode=0755,uid={number},gid={number}");
    let shared = format!("{size},mode=1777");
    tmpfs(WORK_DIR, NOSUID_NODEV, &owned)?;
    tmpfs("/tmp", NOSUID_NODEV, &shared)?;
    tmpfs("/dev/shm", NOSUID_NODEV_NOEXEC, &shared)?;
    // `/var/tmp` is the same space under its other name, which shares the cap and saves a tmpfs.
    bind("/tmp", "/var/tmp")
}

/// Returns whether a scratch space has no bytes or no files left, as seen from inside the cell.
pub(super) fn scratch_full() -> bool {
    SCRATCH.iter().any(|path| {
        // A total of zero means that there is no cap.
        let full = |total, free| total > 0 && free == 0;
        statvfs(*path).is_ok_and(|space| {
            full(space.blocks(), space.blocks_free()) || full(space.files(), space.files_free())
        })
    })
}

fn mount_proc() -> Result<(), CellError> {
    let mount_with = |options| {
        mount(
            Some("proc"),
            "/proc",
            Some("proc"),
            NOSUID_NODEV_NOEXEC,
            options,
        )
    };
    if !Wall::Processes.stands() {
        return mount_with(None).step("mount /proc");
    }
    match mount_with(Some("hidepid=invisible")) {
        // Before Linux 5.8 the option has only its numeric form.
        Err(Errno::EINVAL) => mount_with(Some("hidepid=2")),
        other => other,
    }
    .step("mount /proc")
}

pub(super) fn tmpfs(path: &str, flags: MsFlags, options: &str) -> Result<(), CellError> {
    mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some(options))
        .map_err(|errno| CellError::new(format!("mount a tmpfs on {path}"), errno))
}

/// Mounts `with` on each of these paths. A path that does not exist needs no cover and is skipped.
/// It is an error if `with` itself does not exist.
fn cover(with: &str, places: &[&str]) -> Result<(), CellError> {
    // Checked in advance, because the kernel returns `ENOENT` in both cases.
    let is_there = Path::new(with).exists();
    places
        .iter()
        .try_for_each(|place| match mount_on(with, place) {
            Err(Errno::ENOENT) if is_there => Ok(()),
            other => other.map_err(|errno| no_mount(with, place, errno)),
        })
}

fn bind(from: &str, to: &str) -> Result<(), CellError> {
    match mount_on(from, to) {
        Ok(()) => Ok(()),
        Err(Errno::ENOENT) if !Path::new(to).exists() => Ok(()),
        Err(errno) => Err(no_mount(from, to, errno)),
    }
}

fn mount_on(from: &str, to: &str) -> Result<(), Errno> {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>)
}

fn no_mount(from: &str, to: &str, errno: Errno) -> CellError {
    CellError::new(format!("mount {from} on {to}"), errno)
}

/// Puts a file of the runner's own in place of an image's file.
///
/// # Errors
/// Fails if the mount is refused.
pub(super) fn replace_file(with: &str, path: &str) -> Result<(), CellError> {
    bind(with, path)
}

fn read_only(path: &str) -> Result<(), CellError> {
    bind(path, path)?;
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | NOSUID_NODEV_NOEXEC;
    mount(None::<&str>, path, None::<&str>, flags, None::<&str>)
        .map_err(|errno| CellError::new(format!("make {path} read-only"), errno))
}
