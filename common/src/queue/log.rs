//! A job's output while it runs: appended by the worker that holds it, followed by anyone.

use std::time::Duration;

use super::{Lease, Queue, QueueError, Unblocker};
use crate::id::JobId;
use crate::outcome::Outcome;

/// Which of a program's streams a chunk came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A place in a log: after the entry of this stream id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPosition(String);

impl LogPosition {
    /// Before the first entry.
    #[must_use]
    pub fn start() -> Self {
        Self("0".to_owned())
    }
}

/// One entry of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogEntry {
    /// Something the program wrote.
    Chunk {
        /// Where.
        stream: LogStream,
        /// The bytes, as they came.
        data: Vec<u8>,
        /// The attempt that wrote them, from 1.
        attempt: u32,
        /// The place after this entry.
        after: LogPosition,
    },
    /// Nothing more will come: the job is over.
    End {
        /// How it ended, where the log says so.
        outcome: Option<Outcome>,
    },
}

impl Queue {
    /// Appends to a job's log, if the lease is still held. Answers whether it is.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn log(
        &self,
        lease: &Lease,
        stream: LogStream,
        bytes: &[u8],
    ) -> Result<bool, QueueError> {
        let _ = (lease, stream, bytes);
        unimplemented!()
    }

    /// A reader of one job's log, with a connection of its own.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn log_reader(&self, id: &JobId) -> Result<LogReader, QueueError> {
        let _ = id;
        unimplemented!()
    }
}

/// Follows one job's log.
#[derive(Debug)]
pub struct LogReader {}

impl LogReader {
    /// The entries after `after`, waiting at most `block` for the first. Empty when none came; the last is
    /// [`LogEntry::End`] once the job is over and all has been read.
    ///
    /// # Cancel safety
    /// Safe: reading removes nothing.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn next(
        &mut self,
        after: &LogPosition,
        block: Duration,
    ) -> Result<Vec<LogEntry>, QueueError> {
        let _ = (after, block);
        unimplemented!()
    }

    /// A handle that ends a wait from another task.
    #[must_use]
    pub fn unblocker(&self) -> Unblocker {
        unimplemented!()
    }
}
