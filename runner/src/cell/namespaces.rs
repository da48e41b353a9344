//! Namespaces of a cell, and the system calls that make and enter them.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::sched::CloneFlags;
use nix::sys::stat::Mode;
use nix::unistd::Pid;

use super::wall::Wall;

/// Namespaces that every cell has.
const ALWAYS: CloneFlags = CloneFlags::CLONE_NEWPID
    .union(CloneFlags::CLONE_NEWNS)
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWUTS);

/// Returns the namespaces of a cell, with or without a new one for its network.
pub(super) fn cell_namespaces(network: bool) -> CloneFlags {
    let mut flags = ALWAYS;
    flags.set(CloneFlags::CLONE_NEWNET, network);
    flags.set(CloneFlags::CLONE_NEWIPC, Wall::Messages.stands());
    flags
}

/// Returns the namespaces that a clone of the zygote enters after its fork, each with the flag that
/// `setns` requires. The process namespace is not included, because the fork enters it. The mount
/// namespace is last, because entering it changes the root directory.
pub(super) fn entered_namespaces(network: bool) -> Vec<(CloneFlags, &'static str)> {
    let mut all = vec![
        (CloneFlags::CLONE_NEWIPC, "/proc/self/ns/ipc"),
        (CloneFlags::CLONE_NEWUTS, "/proc/self/ns/uts"),
    ];
    if network {
        all.push((CloneFlags::CLONE_NEWNET, "/proc/self/ns/net"));
    }
    all.push((CloneFlags::CLONE_NEWNS, "/proc/self/ns/mnt"));
    all
}

/// Returns the index of the network namespace in the result of [`open_own_namespaces`], if it is
/// included.
pub(super) fn network_index() -> Option<usize> {
    let mut others = entered_namespaces(true).into_iter();
    others
        .position(|(flag, _)| flag == CloneFlags::CLONE_NEWNET)
        .map(|place| place + 1)
}

/// Path of this process's own process namespace.
const OWN_PIDS: &str = "/proc/self/ns/pid";

/// Opens this process's own namespaces: first the process namespace, then its
/// [`entered_namespaces`].
///
/// # Errors
/// Fails if the kernel refuses.
pub(super) fn open_own_namespaces(network: bool) -> Result<Vec<OwnedFd>, Errno> {
    let paths = entered_namespaces(network)
        .into_iter()
        .map(|(_, path)| path);
    [OWN_PIDS]
        .into_iter()
        .chain(paths)
        .map(|path| open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()))
        .collect()
}

/// Forks into new namespaces. Returns the child's pid in the parent and `None` in the child.
///
/// The child must exit by [`exit_now`] and never return to its caller's caller.
///
/// # Errors
/// Fails if the kernel refuses the namespaces or has no room for a process.
pub(crate) fn clone(flags: CloneFlags) -> Result<Option<Pid>, Errno> {
    let flags = libc::c_long::from(flags.bits() | libc::SIGCHLD);
    let none: libc::c_long = 0;
    // SAFETY: no flag shares memory, files or signal handlers and no stack is given, so this is a
    // fork: the child continues with a copy of everything. The runner has one thread, so no lock is
    // held by a thread that the child would lack.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, none, none, none, none) };
    forked(pid)
}

/// Forks within the same namespaces. Otherwise the same as [`clone`].
///
/// # Errors
/// Fails if the kernel has no room for a process.
pub(super) fn fork() -> Result<Option<Pid>, Errno> {
    clone(CloneFlags::empty())
}

/// Forks a child that is in this cgroup of version 2 from its first moment. Otherwise the same as
/// [`fork`].
///
/// # Errors
/// As for [`clone_into`].
pub(super) fn fork_into(cgroup: BorrowedFd<'_>) -> Result<Option<Pid>, Errno> {
    clone_into(CloneFlags::empty(), cgroup)
}

/// Forks a child into new namespaces and into this cgroup of version 2. Otherwise the same as
/// [`clone`].
///
/// A process that moves itself into a cgroup waits until every CPU has noticed the move. That was
/// measured at 12 ms, and this call at 0.2 ms.
///
/// # Errors
/// Fails if the kernel is older than Linux 5.7, if a seccomp filter does not allow `clone3`, or if
/// there is no room for a process.
pub(crate) fn clone_into(flags: CloneFlags, cgroup: BorrowedFd<'_>) -> Result<Option<Pid>, Errno> {
    /// `CLONE_INTO_CGROUP` of linux/sched.h. It lies above the 32 bits that other calls have for
    /// flags.
    const INTO_CGROUP: u64 = 0x2_0000_0000;
    let descriptor = u64::try_from(cgroup.as_raw_fd()).map_err(|_negative| Errno::EBADF)?;
    let signal = u64::try_from(libc::SIGCHLD).expect("signals have positive numbers");
    let flags = u64::from(flags.bits().cast_unsigned()) | INTO_CGROUP;
    // The fields in the kernel's order: flags, pidfd, child_tid, parent_tid, exit_signal, stack,
    // stack_size, tls, set_tid, set_tid_size, cgroup.
    let arguments: [u64; 11] = [flags, 0, 0, 0, signal, 0, 0, 0, 0, 0, descriptor];
    // SAFETY: `arguments` has the size stated and is only read. No flag shares memory, files or
    // signal handlers and no stack is given, so this is a fork, as in `clone`. The process has one
    // thread, so no lock is held by another.
    let pid =
        unsafe { libc::syscall(libc::SYS_clone3, arguments.as_ptr(), size_of::<[u64; 11]>()) };
    forked(pid)
}

/// Decodes the result of a fork: the child's pid in the parent, or `None` in the child.
fn forked(answer: libc::c_long) -> Result<Option<Pid>, Errno> {
    match Errno::result(answer)? {
        0 => Ok(None),
        pid => Ok(Some(Pid::from_raw(
            libc::pid_t::try_from(pid).expect("the kernel's pids fit pid_t"),
        ))),
    }
}

/// Ends a forked child at once. Skips all handlers that its parent registered to run at exit.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` accepts any code, touches no memory of this process and does not return.
    unsafe { libc::_exit(code) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn nothing_is_forked_into_what_is_no_cgroup() {
        // The caller then forks without the cgroup.
        let folder = std::fs::File::open("/").unwrap();
        assert!(fork_into(folder.as_fd()).is_err());
    }
}
