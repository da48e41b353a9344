//! The output streams of this process, and whether the last line on each has its end.

use std::io;
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// One of the two output streams of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputStream {
    /// Standard output, for results.
    Out,
    /// Standard error, for everything else.
    Err,
}

/// For standard output and for standard error: true if the last byte written was not a line end.
static UNTERMINATED: [AtomicBool; 2] = [AtomicBool::new(false), AtomicBool::new(false)];

impl OutputStream {
    /// Returns whether the last line on the stream has no end.
    pub(super) fn is_open(self) -> bool {
        UNTERMINATED[self as usize].load(Ordering::Relaxed)
    }

    /// Records whether a write left a line without its end. Streams that go to the same terminal,
    /// file or pipe share this state.
    pub(super) fn wrote(self, bytes: &[u8]) {
        let Some(last) = bytes.last() else {
            return;
        };
        for stream in [Self::Out, Self::Err] {
            if stream == self || share_target() {
                UNTERMINATED[stream as usize].store(*last != b'\n', Ordering::Relaxed);
            }
        }
    }
}

/// Returns whether both streams go to one terminal, file or pipe.
fn share_target() -> bool {
    static SHARED: OnceLock<bool> = OnceLock::new();
    *SHARED.get_or_init(|| {
        let place = |stream: &dyn AsFd| {
            let stat = nix::sys::stat::fstat(stream.as_fd()).ok()?;
            Some((stat.st_dev, stat.st_ino))
        };
        let out = place(&io::stdout());
        out.is_some() && out == place(&io::stderr())
    })
}
