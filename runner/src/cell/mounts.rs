//! What a cell sees of files: its own /proc, its own scratch, and nothing of the machine's.
//!
//! What is the same for all cells of a container is hidden once, by [`hide_machine`]; what must be fresh is mounted
//! for each, by [`enter`].

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statvfs::statvfs;

use sandhog_runner::WORK_DIR;
use sandhog_runner::protocol::Caps;

use super::CellError;
use super::error::Step;
use super::identity::CellUser;
use super::wall::Wall;

/// The runner's own small tmpfs; hidden in cells by theirs.
pub(super) const OWN_DIR: &str = "/tmp";

/// An empty read-only directory to hide others under.
const VOID: &str = "/tmp/void";

/// Where a trial mount goes.
const MARK: &str = "/tmp/mark";

const NO_TRICKS: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV);
const INERT: MsFlags = NO_TRICKS.union(MsFlags::MS_NOEXEC);

/// Directories that tell of the machine or keep what an earlier cell left.
const HIDDEN: [&str; 3] = ["/sys", "/run", "/dev/mqueue"];

/// Entries of /proc that tell of the machine or act on it. Those that a container engine would only make read-only
/// are hidden too.
const HIDDEN_PROC_DIRS: [&str; 9] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/bus",
    "/proc/driver",
    "/proc/dynamic_debug",
    "/proc/fs",
    "/proc/irq",
    // All users may write it, and each trigger set there delays the death of its process by a grace
    // period.
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
    // Locks that belong to no process are those of the whole machine, with their files' numbers.
    "/proc/locks",
    "/proc/modules",
    "/proc/partitions",
    "/proc/sched_debug",
    "/proc/sysrq-trigger",
    "/proc/timer_list",
];

/// The scratch spaces that a program can fill.
const SCRATCH: [&str; 3] = [WORK_DIR, "/tmp", "/dev/shm"];

/// Number of scratch spaces, each with a cap of its own.
pub(super) const SCRATCH_SPACES: u32 = 3;

/// Terminals that the processes of a container may have open at once. Without a cap of its own, one
/// container can take all that the machine has for containers (`kernel.pty.max`).
const TERMINALS: u32 = 32;

/// The size of a scratch space whose cap is left out.
const UNCAPPED: u64 = 1 << 40;

/// What this kernel's mounts can do; gVisor's lack both.
#[derive(Debug, Clone, Copy)]
pub(super) struct MountAbilities {
    /// A tmpfs can cap its number of files.
    pub(super) inode_caps: bool,
    /// A part of a file system can be made read-only.
    pub(super) read_only_binds: bool,
}

/// Gives the runner a directory of its own, and learns what mounts can do here.
///
/// # Errors
/// When the container lacks `SYS_ADMIN`, or a security module forbids mounts.
pub(super) fn make_own_dir() -> Result<MountAbilities, CellError> {
    detach_all(OWN_DIR);
    tmpfs(OWN_DIR, INERT, "size=1m,mode=0700")?;
    std::fs::create_dir(VOID).step("make the runner's empty directory")?;
    let inert = INERT | MsFlags::MS_RDONLY;
    let inode_caps = known(tmpfs(VOID, inert, "size=4k,nr_inodes=2,mode=0555"))?;
    if !inode_caps {
        tmpfs(VOID, inert, "size=4k,mode=0555")?;
    }
    Ok(MountAbilities {
        inode_caps,
        read_only_binds: known(read_only("/proc/sys"))?,
    })
}

/// Whether an option is known here: the kernel says that one is not by `EINVAL`.
fn known(outcome: Result<(), CellError>) -> Result<bool, CellError> {
    match outcome {
        Ok(()) => Ok(true),
        Err(error) if error.errno == Errno::EINVAL => Ok(false),
        Err(error) => Err(error),
    }
}

/// Mounts something on the directory for [`leaked`], from a cell's namespaces; whether it could.
pub(super) fn leave_a_mark() -> bool {
    tmpfs(MARK, INERT, "size=4k,mode=0500").is_ok()
}

/// Makes the directory for [`leave_a_mark`].
///
/// # Errors
/// When the runner's own directory cannot be written.
pub(super) fn make_mark() -> Result<(), CellError> {
    std::fs::create_dir(MARK).step("make a directory for a trial mount")
}

/// Whether the mark that a child made in a mount namespace of its own is seen here, and so would all its mounts be.
///
/// # Errors
/// When the directories do not stat.
pub(super) fn leaked() -> Result<bool, CellError> {
    let device = |path| std::fs::metadata(path).map(|found| found.dev());
    let mark = device(MARK).step("look for a trial mount")?;
    let own = device(OWN_DIR).step("look for a trial mount")?;
    Ok(mark != own)
}

/// Keeps mounts from passing between this container, its cells and its host, for all namespaces made from here on.
///
/// # Errors
/// When that is refused and some mount is shared.
pub(super) fn make_private() -> Result<(), CellError> {
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    match mount(None::<&str>, "/", None::<&str>, flags, None::<&str>) {
        // gVisor does not know of sharing; then there is none.
        Err(Errno::EINVAL) if !any_shared() => Ok(()),
        other => other.step("make the mounts private"),
    }
}

/// Whether any mount is shared; yes when it cannot be known.
fn any_shared() -> bool {
    std::fs::read_to_string("/proc/self/mountinfo").map_or(true, |table| table.contains(" shared:"))
}

/// Hides the machine from every cell that follows. What the runner needs of /sys must be open by then.
///
/// # Errors
/// When a mount is refused.
pub(super) fn hide_machine() -> Result<(), CellError> {
    for path in HIDDEN {
        detach_all(path);
    }
    cover(VOID, &HIDDEN)?;
    // Each cell covers the whole of it with its own.
    detach_below("/proc/");
    Ok(())
}

/// Caps the terminals of this container. One job after another runs in it, so the cap is that of a
/// cell.
///
/// # Errors
/// Fails if the kernel refuses.
pub(super) fn cap_terminals() -> Result<(), CellError> {
    if !Wall::Terminals.stands() {
        return Ok(());
    }
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    // A remount sets every option anew, so those of the engine are repeated.
    let options = format!("ptmxmode=0666,mode=0620,gid=5,max={TERMINALS}");
    mount(
        None::<&str>,
        "/dev/pts",
        None::<&str>,
        flags,
        Some(options.as_str()),
    )
    .step("cap the terminals")
}

/// Takes off what is mounted on a directory, with all below it: a cell copies every mount there is, and each costs it
/// time. What stays for some reason is hidden by what is mounted on it next.
fn detach_all(path: &str) {
    while umount2(path, MntFlags::MNT_DETACH).is_ok() {}
}

/// The same for what is mounted somewhere below a directory.
fn detach_below(directory: &str) {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    // The fifth word is where.
    let places = table.lines().filter_map(|line| line.split(' ').nth(4));
    for place in places.filter(|place| place.starts_with(directory)) {
        umount2(place, MntFlags::MNT_DETACH).ok();
    }
}

/// Makes the mounts of one cell, from inside it.
///
/// # Errors
/// When a mount is refused.
pub(super) fn enter(
    caps: &Caps,
    user: CellUser,
    abilities: MountAbilities,
) -> Result<(), CellError> {
    mount_proc()?;
    // Both lists need the runner's own directory, which the cell's /tmp hides.
    if Wall::Masks.stands() {
        cover(VOID, &HIDDEN_PROC_DIRS)?;
        cover("/dev/null", &HIDDEN_PROC_FILES)?;
    }
    if abilities.read_only_binds {
        read_only("/proc/sys")?;
    }

    let bytes = if Wall::ScratchBytes.stands() {
        caps.scratch_bytes
    } else {
        UNCAPPED
    };
    let mut size = format!("size={bytes}");
    if abilities.inode_caps && Wall::ScratchFiles.stands() {
        // The space's own root directory counts too.
        size += &format!(",nr_inodes={}", caps.scratch_inodes.saturating_add(1));
    }
    let number = user.number();
    let owned = format!("{size},mode=0755,uid={number},gid={number}");
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
        // A total of zero means that there is no cap.
        let full = |total, free| total > 0 && free == 0;
        statvfs(*path).is_ok_and(|space| {
            full(space.blocks(), space.blocks_free()) || full(space.files(), space.files_free())
        })
    })
}

fn mount_proc() -> Result<(), CellError> {
    let mount_with = |options| mount(Some("proc"), "/proc", Some("proc"), INERT, options);
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

fn tmpfs(path: &str, flags: MsFlags, options: &str) -> Result<(), CellError> {
    mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some(options))
        .map_err(|errno| CellError::new(format!("mount a tmpfs on {path}"), errno))
}

/// Mounts one thing on all of these. What is not there needs no cover; a cover that is not there is another matter.
fn cover(with: &str, places: &[&str]) -> Result<(), CellError> {
    // Looked at once, because the kernel says the same of both.
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
