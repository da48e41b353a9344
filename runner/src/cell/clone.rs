//! A clone of the zygote as the program of a cell: its way into the cell, and its messages until it
//! runs.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use serde::Serialize;

use sandhog_protocol::frames::{Call, HarnessMessageKind, HarnessRequest, OpenCell};

use super::error::Step;
use super::rlimits::Enforcement;
use super::spec::ProgramFds;
use super::{CellError, Zygote, environment, fd_passing, rlimits};

/// Largest status message of a clone, in bytes.
const MAX_STATUS_BYTES: usize = 256;

/// State of a clone, from the making of its cell until its program runs.
#[derive(Debug)]
pub(super) struct PendingClone {
    /// The runner's copies of the clone's descriptors. The runner closes them once the zygote has
    /// received its own, because a pipe reaches its end only when the last copy is closed.
    clone_fds: Option<(ProgramFds, OwnedFd)>,
    /// The cell's namespaces, once its init has handed them over.
    namespaces: Vec<OwnedFd>,
    /// Pipe on which the clone reports its progress. Closed once the program runs.
    status: Option<File>,
}

/// Request that a clone reads from its channel.
#[derive(Serialize)]
struct Request<'a> {
    #[serde(flatten)]
    program: &'a HarnessRequest,
    env: Vec<(String, String)>,
    /// Resource numbers, each with its soft and hard limit. As in Python, -1 means no limit.
    limits: Vec<(u32, i64, i64)>,
}

/// Encodes the request that tells a clone which program to run, as the body of one message. It
/// includes the program's standard input, if there is any.
///
/// # Errors
/// Fails if a variable has no name or a name with `=` in it.
pub(crate) fn clone_request(
    program: &HarnessRequest,
    open: &OpenCell,
    call: &Call,
) -> Result<Vec<u8>, CellError> {
    let env = environment::call_environment(open, call);
    let request = Request {
        program,
        env: environment::variables(open.caps.cpu_millis, &env)
            .step("encode the program's environment variables")?,
        // The runner keeps a zygote only if cgroups count the cell.
        limits: rlimits::rlimits(&open.caps, call, Enforcement::Cgroup)
            .into_iter()
            .map(|limit| {
                let [soft, hard] =
                    [limit.soft, limit.hard].map(|most| i64::try_from(most).unwrap_or(-1));
                (limit.resource as u32, soft, hard)
            })
            .collect(),
    };
    let mut bytes = serde_json::to_vec(&request).expect("requests have string keys");
    if !call.stdin.is_empty() {
        bytes.reserve_exact(call.stdin.len() + 1);
        bytes.push(BEFORE_STDIN);
        bytes.extend_from_slice(&call.stdin);
    }
    Ok(bytes)
}

/// Separates the request from standard input, if there is any. JSON never contains this byte.
const BEFORE_STDIN: u8 = 0;

/// Message from a clone about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CloneStatus {
    /// The clone is in the cell, has given up all its rights, and waits for its request.
    Ready,
    /// The clone's program begins.
    Started,
    /// A step of the clone's preparation failed.
    Failed(CellError),
}

impl PendingClone {
    /// Creates the state of a clone whose cell is being made. `fds` and `status_write` are the
    /// clone's descriptors, and `status` is the runner's end of the status pipe.
    pub(super) fn new(fds: ProgramFds, status: OwnedFd, status_write: OwnedFd) -> Self {
        Self {
            clone_fds: Some((fds, status_write)),
            namespaces: Vec::new(),
            status: Some(status.into()),
        }
    }

    /// Stores the namespaces of the cell, which its init has sent.
    pub(super) fn set_namespaces(&mut self, namespaces: Vec<OwnedFd>) {
        if !namespaces.is_empty() {
            self.namespaces = namespaces;
        }
    }

    /// Requests the clone from the zygote. The cell must be made. With `join_files` the clone joins
    /// the cell's cgroup.
    ///
    /// # Errors
    /// Fails if the request cannot be sent, or if the clone was already requested.
    pub(super) fn request(
        &mut self,
        join_files: &[File],
        zygote: &mut Zygote,
    ) -> Result<(), CellError> {
        let (fds, status) = self.clone_fds.take().ok_or_else(requested_twice)?;
        let mut sent: Vec<BorrowedFd<'_>> = self.namespaces.iter().map(AsFd::as_fd).collect();
        sent.extend(join_files.iter().map(AsFd::as_fd));
        sent.extend([&fds.stdin, &fds.stdout, &fds.stderr].map(AsFd::as_fd));
        sent.extend(fds.harness.as_ref().map(AsFd::as_fd));
        sent.push(status.as_fd());
        zygote.request_clone(&sent)?;
        self.namespaces = Vec::new();
        Ok(())
    }

    /// Returns whether the cell is made and the clone has not been requested.
    pub(super) fn is_due(&self) -> bool {
        self.clone_fds.is_some() && !self.namespaces.is_empty()
    }

    /// Returns whether the clone has been requested.
    pub(super) fn is_requested(&self) -> bool {
        self.clone_fds.is_none()
    }

    /// Returns the descriptor that becomes readable when the clone sends a status message. `None`
    /// if the program runs or the clone is gone.
    pub(super) fn status_fd(&self) -> Option<BorrowedFd<'_>> {
        self.status.as_ref().map(AsFd::as_fd)
    }

    /// Reads the clone's status message. `None` if there is no new one.
    ///
    /// # Errors
    /// Fails if the pipe cannot be read.
    pub(super) fn read_status(&mut self) -> io::Result<Option<CloneStatus>> {
        let Some(pipe) = &mut self.status else {
            return Ok(None);
        };
        let mut buffer = [0; MAX_STATUS_BYTES];
        let length = match pipe.read(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(None),
            Err(error) => return Err(error),
        };
        let status = decode_status(buffer.get(..length).unwrap_or_default());
        if status != Some(CloneStatus::Ready) {
            self.status = None;
        }
        Ok(status)
    }
}

/// Makes the error for a clone that is requested a second time.
pub(super) fn requested_twice() -> CellError {
    CellError::new("ask for a clone twice", Errno::EALREADY)
}

/// Makes the socket for inference requests and sends the clone its end over `channel`. Returns the
/// runner's end. Must be called before the clone's request is sent.
///
/// # Errors
/// Fails if the kernel refuses.
pub(super) fn send_infer_socket(channel: Option<&UnixStream>) -> Result<UnixStream, CellError> {
    let (ours, theirs) = UnixStream::pair().step("make the socket for inference requests")?;
    ours.set_nonblocking(true)
        .step("make a socket nonblocking")?;
    if let Some(channel) = channel {
        let message = HarnessMessageKind::InferSocket.header(0);
        fd_passing::send_with_fds(channel.as_fd(), &message, &[theirs.as_fd()])
            .step("send the clone its socket for inference requests")?;
    }
    Ok(ours)
}

/// Decodes the bytes of one read. If they hold several messages, the last one counts. `None` means
/// that the pipe ended without a message.
fn decode_status(bytes: &[u8]) -> Option<CloneStatus> {
    let bytes = match bytes.split_first() {
        Some((b'W', [])) => return Some(CloneStatus::Ready),
        Some((b'W', rest)) => rest,
        _ => bytes,
    };
    match bytes.split_first() {
        None => None,
        Some((b'R', _)) => Some(CloneStatus::Started),
        Some((b'F', rest)) => Some(CloneStatus::Failed(failure(&String::from_utf8_lossy(rest)))),
        Some(_) => Some(CloneStatus::Failed(CellError::new(
            "decode the clone's status message",
            Errno::EPROTO,
        ))),
    }
}

/// Decodes a failure of the form `errno step`.
fn failure(text: &str) -> CellError {
    let (errno, step) = text.split_once(' ').unwrap_or(("", text));
    CellError::new(step, errno.parse().map_or(Errno::EPROTO, Errno::from_raw))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_counts() {
        let refused = |step: &str, errno| Some(CloneStatus::Failed(CellError::new(step, errno)));
        assert_eq!(decode_status(b""), None);
        assert_eq!(decode_status(b"W"), Some(CloneStatus::Ready));
        assert_eq!(decode_status(b"WR"), Some(CloneStatus::Started));
        assert_eq!(decode_status(b"R"), Some(CloneStatus::Started));
        assert_eq!(
            decode_status(b"F1 drop the capabilities"),
            refused("drop the capabilities", Errno::EPERM)
        );
        assert_eq!(decode_status(b"WF12 x"), refused("x", Errno::ENOMEM));
        assert_eq!(
            decode_status(b"?"),
            refused("decode the clone's status message", Errno::EPROTO)
        );
    }
}
