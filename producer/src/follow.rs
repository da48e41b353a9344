//! Following a job's output while it runs.

use std::collections::VecDeque;
use std::time::Duration;

use sandhog_common::id::JobId;
use sandhog_common::outcome::{JobResult, Outcome};
use sandhog_common::queue::{LogEntry, LogPosition, LogReader, LogStream};

use crate::client;
use crate::error::ClientError;

/// How long one read waits; after it the next begins.
const BLOCK: Duration = Duration::from_secs(30);

/// Something the program wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// To which of its streams.
    pub stream: LogStream,
    /// The bytes, as they came: not always whole characters.
    pub data: Vec<u8>,
    /// The attempt that wrote them, from 1. A new attempt starts its output from the beginning.
    pub attempt: u32,
}

/// A job's output, chunk by chunk, to the job's end.
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
    pub(crate) fn over(id: JobId, reader: LogReader) -> Self {
        Self {
            id,
            reader,
            after: LogPosition::start(),
            read: VecDeque::new(),
            ended: false,
            outcome: None,
        }
    }

    /// The next chunk, waiting for it; none once the job is over and all of its output has been read.
    ///
    /// After an error the next call goes on where this one stopped.
    ///
    /// # Cancel safety
    /// Safe: what a dropped call had read is read again.
    ///
    /// # Errors
    /// When Redis cannot be reached.
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
                None => self.read = self.reader.next(&self.after, BLOCK).await?.into(),
            }
        }
        Ok(None)
    }

    /// How the job ended, once [`Follow::next`] has answered none and where the log says so: a job that wrote
    /// nothing has no log.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        self.outcome
    }

    /// The job's result, once [`Follow::next`] has answered none and where following brought the
    /// result along; [`Client::wait`](crate::Client::wait) has it otherwise. Handed out once.
    ///
    /// # Errors
    /// If the result cannot be decoded.
    pub async fn take_result(&mut self) -> Result<Option<JobResult>, ClientError> {
        let bytes = self.reader.take_result().await;
        bytes
            .map(|bytes| client::read(&self.id, &bytes))
            .transpose()
    }
}
