//! A cell's program when it is a clone of the zygote: how it gets into the cell, and what it says until it runs.

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

/// The longest word of a clone.
const MAX_WORD: usize = 256;

/// A clone, from the making of its cell until it runs.
#[derive(Debug)]
pub(super) struct Clone {
    /// The runner's copies of what the clone is to have. They go once it has them: a pipe ends with its last copy.
    theirs: Option<(Ends, OwnedFd)>,
    /// The cell's namespaces, once its init has handed them over.
    spaces: Vec<OwnedFd>,
    /// Where the clone tells how far it is; closed once it runs.
    status: Option<File>,
}

/// What a clone reads from its channel.
#[derive(Serialize)]
struct Request<'a> {
    #[serde(flatten)]
    program: &'a HarnessRequest,
    env: Vec<(String, String)>,
    /// Resource numbers and their limits, soft and hard; -1 is none, as in Python.
    limits: Vec<(u32, i64, i64)>,
}

/// The bytes by which a clone is told what to run.
///
/// # Errors
/// When no program can have these variables.
pub(crate) fn clone_request(program: &HarnessRequest, run: &Run) -> Result<Vec<u8>, CellError> {
    let request = Request {
        program,
        env: environment::variables(run.caps.cpu_millis, &environment::of(run))
            .step("give a program these variables")?,
        // A zygote is kept only where cgroups count.
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

/// Stands between the request and standard input, where there is one: no JSON has this byte.
const BEFORE_STDIN: u8 = 0;

/// Stands before the request where a descriptor comes with it: the one to ask models on.
const WITH_QUESTIONS: &[u8] = b"A";

/// What a clone says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FromClone {
    /// It is in the cell, gave up everything, and waits for its request.
    Waits,
    /// Its program begins.
    Started,
    /// A step of ours failed.
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
    /// Asks the zygote for the clone that is to live here. The cell must be made.
    ///
    /// # Errors
    /// When the zygote cannot be asked, or was.
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

    /// Gives the clone a descriptor to ask models on, before its request.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn give_questions(&mut self) -> Result<(), CellError> {
        let (ours, theirs) = UnixStream::pair().step("make a socket for questions")?;
        ours.set_nonblocking(true)
            .step("make a socket nonblocking")?;
        if let Some(channel) = &self.harness {
            passing::send(channel.as_fd(), WITH_QUESTIONS, &[theirs.as_fd()])
                .step("hand over the socket for questions")?;
        }
        self.questions = Some(ours);
        Ok(())
    }

    /// Whether a clone is, or is to be, its program.
    pub(crate) fn is_for_clone(&self) -> bool {
        self.clone.is_some()
    }

    /// Whether the cell is made and its clone has not been asked for.
    pub(crate) fn wants_clone(&self) -> bool {
        self.clone
            .as_ref()
            .is_some_and(|clone| clone.theirs.is_some() && !clone.spaces.is_empty())
    }

    /// Whether its clone has been asked for.
    pub(crate) fn has_asked(&self) -> bool {
        self.clone
            .as_ref()
            .is_some_and(|clone| clone.theirs.is_none())
    }

    /// Readable when the clone has something to say; `None` once it runs or is gone, or where there is none.
    pub(crate) fn clone_status(&self) -> Option<BorrowedFd<'_>> {
        self.clone
            .as_ref()
            .and_then(|clone| clone.status.as_ref())
            .map(AsFd::as_fd)
    }

    /// What the clone has said since it was last asked.
    ///
    /// # Errors
    /// When the pipe fails.
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

/// Reads what came at once: the last of several words counts. `None` is the end without a word.
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
            "understand the clone",
            Errno::EPROTO,
        ))),
    }
}

/// `errno step`.
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
            refused("understand the clone", Errno::EPROTO)
        );
    }
}
