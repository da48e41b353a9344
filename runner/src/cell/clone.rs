//! Clone of the zygote as a cell's program: its way into the cell, and its messages until it runs.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use serde::Serialize;

use sandhog_runner::protocol::{HarnessRequest, Run};

use super::error::Step;
use super::program::Ends;
use super::rlimits::Fence;
use super::{Cell, CellError, Zygote, environment, passing, rlimits};

/// Largest status message of a clone, in bytes.
const MAX_WORD: usize = 256;

/// State of a clone, from the making of its cell until its program runs.
#[derive(Debug)]
pub(super) struct Clone {
    /// The runner's copies of the clone's descriptors. The runner closes them once the zygote has
    /// received its own, because a pipe reaches its end only when the last copy is closed.
    theirs: Option<(Ends, OwnedFd)>,
    /// The cell's namespaces, once its init has handed them over.
    spaces: Vec<OwnedFd>,
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

/// Encodes the request that tells a clone which program to run.
///
/// # Errors
/// Fails if a variable has no name or a name with `=` in it.
pub(crate) fn clone_request(program: &HarnessRequest, run: &Run) -> Result<Vec<u8>, CellError> {
    let request = Request {
        program,
        env: environment::variables(run.caps.cpu_millis, &environment::of(run))
            .step("encode the program's environment variables")?,
        // The runner keeps a zygote only if cgroups count the cell.
        limits: rlimits::limits(&run.caps, Fence::Cgroup)
            .into_iter()
            .map(|limit| {
                let [soft, hard] =
                    [limit.soft, limit.hard].map(|most| i64::try_from(most).unwrap_or(-1));
                (limit.resource as u32, soft, hard)
            })
            .collect(),
    };
    let mut bytes = serde_json::to_vec(&request).expect("requests have string keys");
    if !run.stdin.is_empty() {
        bytes.reserve_exact(run.stdin.len() + 1);
        bytes.push(BEFORE_STDIN);
        bytes.extend_from_slice(&run.stdin);
    }
    Ok(bytes)
}

/// Separates the request from standard input, if there is any. JSON never contains this byte.
const BEFORE_STDIN: u8 = 0;

/// Message that comes before the request and carries the socket for inference requests.
const WITH_QUESTIONS: &[u8] = b"A";

/// Message from a clone about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FromClone {
    /// The clone is in the cell, has given up all its rights, and waits for its request.
    Waits,
    /// The clone's program begins.
    Started,
    /// A step of the clone's preparation failed.
    Failed(CellError),
}

impl Clone {
    pub(super) fn awaited(ends: Ends, status: OwnedFd, status_write: OwnedFd) -> Self {
        Self {
            theirs: Some((ends, status_write)),
            spaces: Vec::new(),
            status: Some(status.into()),
        }
    }

    pub(super) fn take_spaces(&mut self, handed: Vec<OwnedFd>) {
        if !handed.is_empty() {
            self.spaces = handed;
        }
    }
}

impl Cell {
    /// Requests the clone for this cell from the zygote. The cell must be made.
    ///
    /// # Errors
    /// Fails if the request cannot be sent, or if the clone was already requested.
    pub(crate) fn ask_for_clone(&mut self, zygote: &mut Zygote) -> Result<(), CellError> {
        let entrances = self.entrances()?;
        let missing = || CellError::new("ask for a clone twice", Errno::EALREADY);
        let clone = self.clone.as_mut().ok_or_else(missing)?;
        let (ends, status) = clone.theirs.take().ok_or_else(missing)?;
        let mut handed: Vec<BorrowedFd<'_>> = clone.spaces.iter().map(AsFd::as_fd).collect();
        handed.extend(entrances.iter().map(AsFd::as_fd));
        handed.extend([&ends.stdin, &ends.stdout, &ends.stderr].map(AsFd::as_fd));
        handed.extend(ends.harness.as_ref().map(AsFd::as_fd));
        handed.push(status.as_fd());
        zygote.ask_for_clone(&handed)?;
        clone.spaces = Vec::new();
        Ok(())
    }

    /// Sends the clone its socket for inference requests. Must be called before the clone's request
    /// is sent.
    ///
    /// # Errors
    /// Fails if the kernel refuses.
    pub(crate) fn give_questions(&mut self) -> Result<(), CellError> {
        let (ours, theirs) = UnixStream::pair().step("make the socket for inference requests")?;
        ours.set_nonblocking(true)
            .step("make a socket nonblocking")?;
        if let Some(channel) = &self.harness {
            passing::send(channel.as_fd(), WITH_QUESTIONS, &[theirs.as_fd()])
                .step("send the clone its socket for inference requests")?;
        }
        self.questions = Some(ours);
        Ok(())
    }

    /// Returns whether the cell's program is a clone, or is to be one.
    pub(crate) fn is_for_clone(&self) -> bool {
        self.clone.is_some()
    }

    /// Returns whether the cell is made and its clone has not been requested.
    pub(crate) fn wants_clone(&self) -> bool {
        self.clone
            .as_ref()
            .is_some_and(|clone| clone.theirs.is_some() && !clone.spaces.is_empty())
    }

    /// Returns whether the cell's clone has been requested.
    pub(crate) fn has_asked(&self) -> bool {
        self.clone
            .as_ref()
            .is_some_and(|clone| clone.theirs.is_none())
    }

    /// Returns the descriptor that becomes readable when the clone sends a status message. `None`
    /// if the program runs, if the clone is gone, or if there is no clone.
    pub(crate) fn clone_status(&self) -> Option<BorrowedFd<'_>> {
        self.clone
            .as_ref()
            .and_then(|clone| clone.status.as_ref())
            .map(AsFd::as_fd)
    }

    /// Reads the clone's status message. `None` if there is no new one.
    ///
    /// # Errors
    /// Fails if the pipe cannot be read.
    pub(crate) fn hear_clone(&mut self) -> io::Result<Option<FromClone>> {
        let Some(clone) = &mut self.clone else {
            return Ok(None);
        };
        let Some(status) = &mut clone.status else {
            return Ok(None);
        };
        let mut buffer = [0; MAX_WORD];
        let length = match status.read(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(None),
            Err(error) => return Err(error),
        };
        let word = read_word(buffer.get(..length).unwrap_or_default());
        if word != Some(FromClone::Waits) {
            clone.status = None;
        }
        Ok(word)
    }
}

/// Decodes the bytes of one read. If they hold several messages, the last one counts. `None` means
/// that the pipe ended without a message.
fn read_word(bytes: &[u8]) -> Option<FromClone> {
    let bytes = match bytes.split_first() {
        Some((b'W', [])) => return Some(FromClone::Waits),
        Some((b'W', rest)) => rest,
        _ => bytes,
    };
    match bytes.split_first() {
        None => None,
        Some((b'R', _)) => Some(FromClone::Started),
        Some((b'F', rest)) => Some(FromClone::Failed(failure(&String::from_utf8_lossy(rest)))),
        Some(_) => Some(FromClone::Failed(CellError::new(
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
        let refused = |step: &str, errno| Some(FromClone::Failed(CellError::new(step, errno)));
        assert_eq!(read_word(b""), None);
        assert_eq!(read_word(b"W"), Some(FromClone::Waits));
        assert_eq!(read_word(b"WR"), Some(FromClone::Started));
        assert_eq!(read_word(b"R"), Some(FromClone::Started));
        assert_eq!(
            read_word(b"F1 drop the capabilities"),
            refused("drop the capabilities", Errno::EPERM)
        );
        assert_eq!(read_word(b"WF12 x"), refused("x", Errno::ENOMEM));
        assert_eq!(
            read_word(b"?"),
            refused("decode the clone's status message", Errno::EPROTO)
        );
    }
}
