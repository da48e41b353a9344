//! Placing and closing of descriptors. No descriptor of the runner's own may reach a cell.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::unistd::{Gid, Uid, pipe2, setfsgid, setfsuid};

use sandhog_protocol::frames::INFER_FD;

use super::cell_user::CellUser;

/// Descriptor of a harness's socket.
pub(super) const HARNESS_FD: RawFd = 3;

/// Bound above every possible descriptor. gVisor takes a larger value for a negative number.
const LAST_FD: libc::c_uint = RawFd::MAX.unsigned_abs();

/// Returns the socket on descriptor 3 with which a program in a cell was started. The HTTP proxy,
/// the only part of the runner's executable that runs as a program in a cell, uses it. The
/// processes that the caller starts do not inherit the socket.
///
/// # Errors
/// Fails if the process was started without it.
pub(crate) fn descriptor_three() -> io::Result<UnixStream> {
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    // SAFETY: the number is borrowed for two calls, both of which fail if it is not open.
    let three = unsafe { BorrowedFd::borrow_raw(HARNESS_FD) };
    fcntl(three, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    // The caller gets a duplicate, which stays open even if other code closes descriptor 3.
    let own = UnixStream::from(three.try_clone_to_owned()?);
    own.set_nonblocking(false)?;
    Ok(own)
}

/// Takes over an inherited descriptor. Processes that this one starts do not inherit it.
///
/// # Errors
/// Fails if the descriptor is not open.
pub(super) fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    // SAFETY: the number is borrowed for two calls, both of which fail if it is not open.
    let inherited = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl(inherited, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    // The caller gets a duplicate, whose number nothing else can use.
    let own = inherited.try_clone_to_owned()?;
    // The inherited number would keep the socket open beside the duplicate. Its exec would close
    // it, but a fork would not.
    close_range(number.unsigned_abs(), number.unsigned_abs())?;
    Ok(own)
}

/// Makes two pipes that belong to the cell's user, so that a program can open `/dev/stdout` again
/// by name.
///
/// # Errors
/// Fails if the kernel has no room for them.
pub(super) fn cell_pipes(user: CellUser) -> Result<[(OwnedFd, OwnedFd); 2], Errno> {
    // A pipe belongs to the file-system user of the process that makes it. The runner has one
    // thread, so no other code runs under the changed user.
    setfsgid(user.gid());
    setfsuid(user.uid());
    let pipes = [(); 2].map(|()| pipe2(OFlag::O_CLOEXEC));
    setfsuid(Uid::from_raw(0));
    setfsgid(Gid::from_raw(0));
    let [first, second] = pipes;
    Ok([first?, second?])
}

/// Closes every descriptor of this process except these.
///
/// # Errors
/// Fails if the kernel lacks `close_range` (Linux 5.9) or refuses it.
pub(super) fn close_descriptors_except(keep: &[BorrowedFd<'_>]) -> Result<(), Errno> {
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

/// Closes these two descriptors and all between them.
fn close_range(first: libc::c_uint, last: libc::c_uint) -> Result<(), Errno> {
    // SAFETY: the call takes no pointers. The callers are freshly forked children that exit without
    // running destructors, so no owner of a closed descriptor is ever used or dropped again, or
    // they close an inherited number that has no owner.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    Errno::result(done).map(drop)
}

/// Makes the next exec close every descriptor from `first` on.
///
/// # Errors
/// Fails if the kernel lacks `close_range` with that flag (Linux 5.11) or refuses it.
pub(crate) fn close_at_exec_from(first: RawFd) -> Result<(), Errno> {
    let flag = libc::CLOSE_RANGE_CLOEXEC;
    // SAFETY: the call takes no pointers and closes nothing now.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, LAST_FD, flag) };
    Errno::result(done).map(drop)
}

/// Puts `fd` at `number`, where it stays open across an exec.
///
/// # Errors
/// Fails if the kernel refuses.
pub(crate) fn install_at(fd: &OwnedFd, number: RawFd) -> Result<(), Errno> {
    if fd.as_raw_fd() == number {
        return nix::fcntl::fcntl(
            fd,
            nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()),
        )
        .map(drop);
    }
    // SAFETY: the call takes no pointers. The descriptor that was open at `number` is a copy that
    // only this child had; see `move_out_of_the_way`.
    let done = unsafe { libc::dup2(fd.as_raw_fd(), number) };
    Errno::result(done).map(drop)
}

/// Moves `fd` to a number above those that [`install_at`] fills, so that placing one descriptor
/// cannot close another.
///
/// # Errors
/// Fails if the kernel has no room.
pub(crate) fn move_out_of_the_way(fd: OwnedFd) -> Result<OwnedFd, Errno> {
    use std::os::fd::FromRawFd;
    if fd.as_raw_fd() > INFER_FD {
        return Ok(fd);
    }
    let lifted = nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(INFER_FD + 1))?;
    // The old number stays open: `install_at` overwrites it, or the exec closes it.
    let _old = fd.into_raw_fd();
    // SAFETY: the kernel has just made `lifted`, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(lifted) })
}
