//! Which descriptors go where: nothing of the runner's may reach a cell.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::unistd::{Gid, Uid, pipe2, setfsgid, setfsuid};

use sandhog_runner::protocol::QUESTIONS_FD;

use super::identity::CellUser;

/// The descriptor a harness speaks on.
pub(super) const HARNESS_FD: RawFd = 3;

/// Above every descriptor there can be; more than this gVisor takes for a negative number.
const LAST_FD: libc::c_uint = RawFd::MAX.unsigned_abs();

/// The socket that a program in a cell was started with, for the one part of this program that runs in one. Nothing
/// that it starts inherits it.
///
/// # Errors
/// When it was started without.
pub(crate) fn descriptor_three() -> io::Result<UnixStream> {
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    // SAFETY: borrowed for two calls that fail on a number that is not open.
    let three = unsafe { BorrowedFd::borrow_raw(HARNESS_FD) };
    fcntl(three, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    // A number of our own: whoever else might close the first one closes nothing of ours.
    let own = UnixStream::from(three.try_clone_to_owned()?);
    own.set_nonblocking(false)?;
    Ok(own)
}

/// Two pipes that belong to the cell's user, so that a program can open `/dev/stdout` again by
/// name.
///
/// # Errors
/// When the kernel has no room for them.
pub(super) fn cell_pipes(user: CellUser) -> Result<[(OwnedFd, OwnedFd); 2], Errno> {
    // A pipe's owner is its maker's file-system user. The runner has one thread, so nobody else sees the change.
    setfsgid(user.gid());
    setfsuid(user.uid());
    let pipes = [(); 2].map(|()| pipe2(OFlag::O_CLOEXEC));
    setfsuid(Uid::from_raw(0));
    setfsgid(Gid::from_raw(0));
    let [first, second] = pipes;
    Ok([first?, second?])
}

/// Closes every descriptor of this process but these.
///
/// # Errors
/// When the kernel lacks `close_range` (Linux 5.9) or refuses it.
pub(super) fn close_all_but(keep: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut keep: Vec<libc::c_uint> = keep
        .iter()
        .map(|fd| {
            libc::c_uint::try_from(fd.as_raw_fd()).expect("an open descriptor is not negative")
        })
        .collect();
    keep.sort_unstable();
    let mut first = 0;
    for kept in keep {
        if kept > first {
            close_range(first, kept - 1)?;
        }
        first = kept + 1;
    }
    close_range(first, LAST_FD)
}

/// Closes these and all between them.
fn close_range(first: libc::c_uint, last: libc::c_uint) -> Result<(), Errno> {
    // SAFETY: takes no pointers. The callers are freshly forked children that leave without running destructors, so
    // no owner of a closed descriptor is ever used or dropped again.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    Errno::result(done).map(drop)
}

/// Makes the next exec close every descriptor from `first` on.
///
/// # Errors
/// When the kernel lacks `close_range` with that flag (Linux 5.11) or refuses it.
pub(super) fn close_at_exec_from(first: RawFd) -> Result<(), Errno> {
    let flag = libc::CLOSE_RANGE_CLOEXEC;
    // SAFETY: takes no pointers and closes nothing now.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, LAST_FD, flag) };
    Errno::result(done).map(drop)
}

/// Puts `fd` at `number`, where it stays open over an exec.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn place(fd: &OwnedFd, number: RawFd) -> Result<(), Errno> {
    if fd.as_raw_fd() == number {
        return nix::fcntl::fcntl(
            fd,
            nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()),
        )
        .map(drop);
    }
    // SAFETY: takes no pointers. Whatever was open at `number` is a copy that only this child had; see `lift`.
    let done = unsafe { libc::dup2(fd.as_raw_fd(), number) };
    Errno::result(done).map(drop)
}

/// Moves `fd` to a number above the ones that [`place`] fills, so that placing one cannot close another.
///
/// # Errors
/// When the kernel has no room.
pub(super) fn lift(fd: OwnedFd) -> Result<OwnedFd, Errno> {
    use std::os::fd::FromRawFd;
    if fd.as_raw_fd() > QUESTIONS_FD {
        return Ok(fd);
    }
    let lifted = nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(QUESTIONS_FD + 1))?;
    // The old number is left open: it is overwritten by `place` or closed at exec.
    let _old = fd.into_raw_fd();
    // SAFETY: `lifted` was just made by the kernel for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(lifted) })
}
