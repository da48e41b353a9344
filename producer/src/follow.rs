//! Following a job's output while it runs.

use std::collections::VecDeque;
use std::time::Duration;

use sandhog_core::id::JobId;
use sandhog_core::outcome::{JobResult, Outcome};
use sandhog_queue::{LogEntry, LogPosition, LogReader, LogStream};

use crate::decode::decode;
use crate::error::ClientError;

/// Longest time that one read of the log blocks; after it the next read begins.
const READ_BLOCK: Duration = Duration::from_secs(30);

/// A piece of the program's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// The stream that the program wrote to.
    pub stream: LogStream,
    /// The bytes as they were written. They may begin or end in the middle of a character.
    pub data: Vec<u8>,
    /// The attempt that wrote them, from 1. A new attempt starts its output from the beginning.
    pub attempt: u32,
}

/// Reader of a job's output, chunk by chunk, until the job ends.
#[derive(Debug)]
pub struct Follow {
    id: JobId,
    reader: LogReader,
    after: LogPosition,
    read: VecDeque<LogEntry>,
    ended: bool,
    outcome: Option<Outcome>,
}

impl Follow {
    pub(crate) fn new(id: JobId, reader: LogReader) -> Self {
        Self {
            id,
            reader,
            after: LogPosition::start(),
            read: VecDeque::new(),
            ended: false,
            outcome: None,
        }
    }

    /// Waits for the next chunk and returns it. Returns `None` once the job has ended and all of
    /// its output has been read.
    ///
    /// After an error, the next call continues where this one stopped.
    ///
    /// # Cancel safety
    /// Safe: chunks that a dropped call had read are read again.
    ///
    /// # Errors
    /// Fails if Redis cannot be reached.
    pub async fn next(&mut self) -> Result<Option<Chunk>, ClientError> {
        while !self.ended {
            match self.read.pop_front() {
                Some(LogEntry::Chunk {
                    stream,
                    data,
                    attempt,
                    after,
                }) => {
                    self.after = after;
                    return Ok(Some(Chunk {
                        stream,
                        data,
                        attempt,
                    }));
                }
                Some(LogEntry::End { outcome }) => {
                    self.ended = true;
                    self.outcome = outcome;
                }
                None => self.read = self.reader.next(&self.after, READ_BLOCK).await?.into(),
            }
        }
        Ok(None)
    }

    /// The job's outcome, after [`Follow::next`] has returned `None`, if the log contains it. A job
    /// that wrote nothing has no log.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        self.outcome
    }

    /// Returns the job's result after [`Follow::next`] has returned `None`, if the reader of the
    /// log has received it as well; otherwise use [`Client::wait`](crate::Client::wait). The result
    /// is returned once; later calls return `None`.
    ///
    /// # Errors
    /// If the result cannot be decoded.
    pub async fn take_result(&mut self) -> Result<Option<JobResult>, ClientError> {
        let bytes = self.reader.take_result().await;
        bytes.map(|bytes| decode(&self.id, &bytes)).transpose()
    }
}
