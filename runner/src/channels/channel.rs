//! The interface by which the event loop of a job drives a channel.

use std::io;

use nix::poll::PollFd;

use sandhog_protocol::frames::MAX_CHUNK;

use crate::connection::Connection;

/// Facts that decide whether a channel waits for bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PollState {
    /// True if many bytes wait for the worker. A channel then leaves the program's bytes where they
    /// are.
    pub(crate) congested: bool,
    /// False while the reading of a program's output and displays is paused, and after the
    /// program's end.
    pub(crate) is_reading: bool,
}

/// The state of the program in a turn of the event loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The program runs, or its cell is being made.
    Running,
    /// The program has ended. Other processes of its cell may be left.
    Ended,
    /// Every process of the cell is dead. The last bytes are read, and nothing is written.
    Drain,
}

/// A channel between the worker and a program. Every call returns without blocking.
pub(crate) trait Channel {
    /// Returns the descriptor and the events to wait for. `None` if the channel waits for nothing
    /// at this moment.
    fn interest(&self, state: PollState) -> Option<PollFd<'_>>;

    /// Passes on the bytes that are there, in both directions. Returns whether the program had sent
    /// any. It is called in every turn of the event loop, so it finds out by itself what is ready.
    ///
    /// # Errors
    /// Fails if the stream to the worker or the pipe of the program fails.
    fn transfer(
        &mut self,
        connection: &mut Connection,
        turn: Turn,
        buffer: &mut [u8; MAX_CHUNK],
    ) -> io::Result<bool>;
}
