//! The namespaces of a cell, and the clone that enters them.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::sched::CloneFlags;
use nix::sys::stat::Mode;
use nix::unistd::Pid;

use super::wall::Wall;

/// The namespaces every cell has.
const ALWAYS: CloneFlags = CloneFlags::CLONE_NEWPID
    .union(CloneFlags::CLONE_NEWNS)
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWUTS);

/// The namespaces of a cell, with or without a new one for its network.
pub(super) fn flags(network: bool) -> CloneFlags {
    let mut flags = ALWAYS;
    flags.set(CloneFlags::CLONE_NEWNET, network);
    flags.set(CloneFlags::CLONE_NEWIPC, Wall::Messages.stands());
    flags
}

/// The namespaces that a clone of the zygote enters after its fork, with the flag that `setns` wants for each. The
/// process namespace is not among them: it is entered by the fork. The mounts are last: they change the root.
pub(super) fn entrances(network: bool) -> Vec<(CloneFlags, &'static str)> {
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

/// Which of what [`open_own`] gives is the network, if it is among them.
pub(super) fn place_of_network() -> Option<usize> {
    let mut others = entrances(true).into_iter();
    others
        .position(|(flag, _)| flag == CloneFlags::CLONE_NEWNET)
        .map(|place| place + 1)
}

/// This process's own process namespace.
const OWN_PIDS: &str = "/proc/self/ns/pid";

/// Opens this process's own namespaces: that of its processes, then its [`entrances`].
///
/// # Errors
/// When the kernel refuses.
pub(super) fn open_own(network: bool) -> Result<Vec<OwnedFd>, Errno> {
    let paths = entrances(network).into_iter().map(|(_, path)| path);
    [OWN_PIDS]
        .into_iter()
        .chain(paths)
        .map(|path| open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()))
        .collect()
}

/// Forks into new namespaces: the child's pid in the parent, `None` in the child.
///
/// The child must leave by [`leave`], never by returning to its caller's caller.
///
/// # Errors
/// When the kernel refuses the namespaces or has no room for a process.
pub(super) fn clone(flags: CloneFlags) -> Result<Option<Pid>, Errno> {
    let flags = libc::c_long::from(flags.bits() | libc::SIGCHLD);
    let none: libc::c_long = 0;
    // SAFETY: no flag shares memory, files or signal handlers and no stack is given, so this is a fork: the child
    // goes on with a copy of everything. The runner has one thread, so no lock is held by a thread that the child
    // would lack.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, none, none, none, none) };
    forked(pid)
}

/// Forks within the same namespaces; as [`clone`].
///
/// # Errors
/// When the kernel has no room for a process.
pub(super) fn fork() -> Result<Option<Pid>, Errno> {
    clone(CloneFlags::empty())
}

/// Forks a child that is in this cgroup of version 2 from its first moment; otherwise as [`fork`].
///
/// A process that moves there by itself waits until every CPU has noticed: 12 ms were measured, and 0.2 for this.
///
/// # Errors
/// When the kernel is older than Linux 5.7, a filter knows no `clone3`, or there is no room for a process.
pub(super) fn fork_into(cgroup: BorrowedFd<'_>) -> Result<Option<Pid>, Errno> {
    /// `CLONE_INTO_CGROUP` of linux/sched.h: beyond the 32 bits that other calls have for flags.
    const INTO_CGROUP: u64 = 0x2_0000_0000;
    let descriptor = u64::try_from(cgroup.as_raw_fd()).map_err(|_negative| Errno::EBADF)?;
    let signal = u64::try_from(libc::SIGCHLD).expect("signals have positive numbers");
    // In the kernel's order: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid,
    // set_tid_size, cgroup.
    let arguments: [u64; 11] = [INTO_CGROUP, 0, 0, 0, signal, 0, 0, 0, 0, 0, descriptor];
    // SAFETY: `arguments` has the size stated and is only read. No flag shares memory, files or signal handlers and no
    // stack is given, so this is a fork, as in `clone`: of a process with one thread, so no lock is held by another.
    let pid =
        unsafe { libc::syscall(libc::SYS_clone3, arguments.as_ptr(), size_of::<[u64; 11]>()) };
    forked(pid)
}

/// What a fork answered: the child's pid, or `None` in the child.
fn forked(answer: libc::c_long) -> Result<Option<Pid>, Errno> {
    match Errno::result(answer)? {
        0 => Ok(None),
        pid => Ok(Some(Pid::from_raw(
            libc::pid_t::try_from(pid).expect("the kernel's pids fit pid_t"),
        ))),
    }
}

/// Ends a forked child at once, running nothing that its parent set up to run at exit.
pub(super) fn leave(code: i32) -> ! {
    // SAFETY: `_exit` takes any code, touches no memory of this process and does not return.
    unsafe { libc::_exit(code) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn nothing_is_forked_into_what_is_no_cgroup() {
        // Whoever asked for it forks without, then.
        let folder = std::fs::File::open("/").unwrap();
        assert!(fork_into(folder.as_fd()).is_err());
    }
}
