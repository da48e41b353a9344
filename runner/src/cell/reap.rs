//! Collection of dead children.

use nix::errno::Errno;
use nix::libc;
use nix::unistd::Pid;

use sandhog_protocol::frames::ProgramEnd;

/// A dead child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Process id of the child.
    pub(crate) pid: Pid,
    /// Exit code or signal of the child.
    pub(crate) end: ProgramEnd,
}

/// Reaps one dead child, if there is one. With `block`, waits until a child dies.
///
/// `Ok(None)` means that children live but none is dead. nix's own call is not used, because for a
/// child that a real-time signal ended it reaps the child and then fails.
///
/// # Errors
/// `ECHILD` if there is no child at all.
pub(crate) fn reap_one(block: bool) -> Result<Option<Ended>, Errno> {
    let mut status: libc::c_int = 0;
    let options = if block { 0 } else { libc::WNOHANG };
    loop {
        // SAFETY: `status` is a live, writable c_int for the whole call.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, options) };
        match Errno::result(pid) {
            Ok(0) => return Ok(None),
            Ok(pid) => {
                let pid = Pid::from_raw(pid);
                return Ok(Some(Ended {
                    pid,
                    end: end_of(status),
                }));
            }
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Reaps every dead child. As PID 1 the runner inherits every orphan of the container.
pub(crate) fn reap_all(mut each: impl FnMut(Ended)) {
    while let Ok(Some(ended)) = reap_one(false) {
        each(ended);
    }
}

/// Decodes a wait status.
pub(super) fn end_of(status: libc::c_int) -> ProgramEnd {
    if libc::WIFSIGNALED(status) {
        ProgramEnd::Signaled(libc::WTERMSIG(status))
    } else {
        ProgramEnd::Exited(libc::WEXITSTATUS(status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_statuses_are_read() {
        let cases = [
            ("exit 0", 0x0000, ProgramEnd::Exited(0)),
            ("exit 3", 0x0300, ProgramEnd::Exited(3)),
            ("exit 255", 0xff00, ProgramEnd::Exited(255)),
            ("SIGKILL", 0x0009, ProgramEnd::Signaled(9)),
            ("SIGSEGV with a core flag", 0x008b, ProgramEnd::Signaled(11)),
            ("a real-time signal", 0x0022, ProgramEnd::Signaled(34)),
        ];
        for (name, status, end) in cases {
            assert_eq!(end_of(status), end, "{name}");
        }
    }
}
