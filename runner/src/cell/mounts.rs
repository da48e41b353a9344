//! What a cell sees of files: its own /proc, its own scratch, and nothing of the machine's.
//!
//! What is the same for all cells of a container is hidden once, by [`hide_machine`]; what must be fresh is mounted
//! for each, by [`enter`].

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::statvfs::statvfs;

use sandhog_runner::protocol::Caps;
use sandhog_runner::{CELL_UID, WORK_DIR};

use super::CellError;
use super::error::Step;

/// The runner's own small tmpfs; hidden in cells by theirs.
pub(super) const OWN_DIR: &str = "/tmp";

/// An empty read-only directory to hide others under.
const VOID: &str = "/tmp/void";

const NO_TRICKS: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV);
const INERT: MsFlags = NO_TRICKS.union(MsFlags::MS_NOEXEC);

/// Directories that tell of the machine or keep what an earlier cell left.
const HIDDEN: [&str; 3] = ["/sys", "/run", "/dev/mqueue"];

/// Entries of /proc that tell of the machine or act on it. Those that a container engine would only make read-only
/// are hidden too.
const HIDDEN_PROC_DIRS: [&str; 8] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/bus",
    "/proc/driver",
    "/proc/dynamic_debug",
    "/proc/fs",
    "/proc/irq",
    "/proc/scsi",
];
const HIDDEN_PROC_FILES: [&str; 15] = [
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
    "/proc/modules",
    "/proc/partitions",
    "/proc/sched_debug",
    "/proc/sysrq-trigger",
    "/proc/timer_list",
];

/// The scratch spaces that a program can fill.
const SCRATCH: [&str; 3] = [WORK_DIR, "/tmp", "/dev/shm"];

/// Gives the runner a directory of its own.
///
/// # Errors
/// When the container lacks `SYS_ADMIN`, or a security module forbids mounts.
pub(super) fn make_own_dir() -> Result<(), CellError> {
    tmpfs(OWN_DIR, INERT, "size=1m,nr_inodes=64,mode=0700")?;
    std::fs::create_dir(VOID).step("make the runner's empty directory")?;
    tmpfs(
        VOID,
        INERT | MsFlags::MS_RDONLY,
        "size=4k,nr_inodes=2,mode=0555",
    )
}

/// Hides the machine from every cell that follows. What the runner needs of /sys must be open by then.
///
/// # Errors
/// When a mount is refused.
pub(super) fn hide_machine() -> Result<(), CellError> {
    HIDDEN.iter().try_for_each(|path| hide_dir(path))
}

/// Makes the mounts of one cell, from inside it.
///
/// # Errors
/// When a mount is refused.
pub(super) fn enter(caps: &Caps) -> Result<(), CellError> {
    let root = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, root, None::<&str>).step("make the mounts private")?;

    mount_proc()?;
    // Both lists need the runner's own directory, which the cell's /tmp hides.
    HIDDEN_PROC_DIRS
        .iter()
        .try_for_each(|path| hide_dir(path))?;
    HIDDEN_PROC_FILES
        .iter()
        .try_for_each(|path| hide_file(path))?;
    read_only("/proc/sys")?;

    let size = format!(
        "size={},nr_inodes={}",
        caps.scratch_bytes,
        // The space's own root directory counts too.
        caps.scratch_inodes.saturating_add(1)
    );
    let owned = format!("{size},mode=0755,uid={CELL_UID},gid={CELL_UID}");
    let shared = format!("{size},mode=1777");
    tmpfs(WORK_DIR, NO_TRICKS, &owned)?;
    tmpfs("/tmp", NO_TRICKS, &shared)?;
    tmpfs("/dev/shm", INERT, &shared)?;
    // The same space under its other name: one cap, one mount less.
    bind("/tmp", "/var/tmp")
}

/// Whether a scratch space has no bytes or no files left to give, as seen from inside the cell.
pub(super) fn scratch_full() -> bool {
    SCRATCH.iter().any(|path| {
        statvfs(*path).is_ok_and(|space| space.blocks_free() == 0 || space.files_free() == 0)
    })
}

fn mount_proc() -> Result<(), CellError> {
    let mount_with = |options| mount(Some("proc"), "/proc", Some("proc"), INERT, options);
    match mount_with(Some("hidepid=invisible")) {
        // Before Linux 5.8 the option has only its numeric form.
        Err(Errno::EINVAL) => mount_with(Some("hidepid=2")),
        other => other,
    }
    .step("mount /proc")
}

fn tmpfs(path: &str, flags: MsFlags, options: &str) -> Result<(), CellError> {
    mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some(options))
        .map_err(|errno| CellError::new(format!("mount a tmpfs on {path}"), errno))
}

fn bind(from: &str, to: &str) -> Result<(), CellError> {
    match mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>) {
        // What is not there needs no cover.
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(CellError::new(format!("mount {from} on {to}"), errno)),
    }
}

fn hide_dir(path: &str) -> Result<(), CellError> {
    bind(VOID, path)
}

fn hide_file(path: &str) -> Result<(), CellError> {
    bind("/dev/null", path)
}

/// Puts one of the runner's own files in the place of an image's file.
///
/// # Errors
/// When the mount is refused.
pub(super) fn replace_file(with: &str, path: &str) -> Result<(), CellError> {
    bind(with, path)
}

fn read_only(path: &str) -> Result<(), CellError> {
    bind(path, path)?;
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | INERT;
    mount(None::<&str>, path, None::<&str>, flags, None::<&str>)
        .map_err(|errno| CellError::new(format!("make {path} read-only"), errno))
}
