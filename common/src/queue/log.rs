//! A job's output while it runs: appended by the worker that holds it, followed by anyone.

use std::time::Duration;

use redis::Cmd;
use tokio::time::Instant;

use super::blocking::Blocking;
use super::reply::Reply;
use super::script::LOG;
use super::streams::{self, StreamEntry};
use super::{Lease, Queue, QueueError, Unblocker, record};
use crate::id::JobId;
use crate::outcome::Outcome;

/// How long one wait for output is, at most: after it the reader looks whether the job is over, since a job that
/// prints nothing has no log that could say so.
const SLICE: Duration = Duration::from_millis(500);

/// How many entries are read at once.
const TOGETHER: usize = 128;

/// Which of a program's streams a chunk came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl LogStream {
    /// The name in the log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Something a program wrote, on its way into the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Where.
    pub stream: LogStream,
    /// The bytes, as they came.
    pub data: Vec<u8>,
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

    /// The place as Redis writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
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
        /// The attempt that wrote them, from 1. A new attempt starts its output from the beginning.
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
    /// Appends one chunk: [`Queue::log_all`] for one.
    ///
    /// # Errors
    /// As [`Queue::log_all`].
    pub async fn log(
        &self,
        lease: &Lease,
        stream: LogStream,
        bytes: &[u8],
    ) -> Result<bool, QueueError> {
        let data = bytes.to_vec();
        self.log_all(lease, &[Said { stream, data }]).await
    }

    /// Appends to a job's log, if the lease is still held. Answers whether it is.
    ///
    /// A chunk is written at most once, and lost where Redis is full or the connection breaks: the job's result
    /// carries its output anyway.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn log_all(&self, lease: &Lease, chunks: &[Said]) -> Result<bool, QueueError> {
        let mut call = LOG
            .call(self.keys.prefix())
            .arg(lease.worker.as_str())
            .arg(lease.class.as_str())
            .arg(lease.token.as_str())
            .arg(lease.id.as_str());
        for said in chunks {
            call.push(said.stream.as_str());
            call.push(&said.data);
        }
        let answer = call.run_once(&self.link).await?;
        Ok(Reply::new("log", answer).number::<u8>()? == 1)
    }

    /// A reader of one job's log, with a connection of its own.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn log_reader(&self, id: &JobId) -> Result<LogReader, QueueError> {
        Ok(LogReader {
            blocking: Blocking::open(&self.link).await?,
            log: self.keys.log(id),
            result: self.keys.result(id),
        })
    }
}

/// Follows one job's log.
#[derive(Debug)]
pub struct LogReader {
    blocking: Blocking,
    log: String,
    result: String,
}

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
        let _reading = self.blocking.enter();
        let deadline = Instant::now() + block;
        loop {
            if self.blocking.is_unblocked() {
                return Ok(Vec::new());
            }
            let slice = deadline
                .saturating_duration_since(Instant::now())
                .min(SLICE);
            let found = self.read(after, slice).await?;
            if !found.is_empty() {
                return Ok(found);
            }
            if self.is_over().await? {
                // The log was complete when the result was published, so one more look is the last.
                let mut rest = self.read(after, Duration::ZERO).await?;
                if rest.is_empty() {
                    rest.push(LogEntry::End { outcome: None });
                }
                return Ok(rest);
            }
            if Instant::now() >= deadline {
                return Ok(Vec::new());
            }
        }
    }

    /// A handle that ends a wait from another task.
    #[must_use]
    pub fn unblocker(&self) -> Unblocker {
        self.blocking.unblocker()
    }

    async fn read(
        &mut self,
        after: &LogPosition,
        wait: Duration,
    ) -> Result<Vec<LogEntry>, QueueError> {
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(TOGETHER);
        if let Some(block) = streams::block(wait) {
            command.arg("BLOCK").arg(block);
        }
        command.arg("STREAMS").arg(&self.log).arg(after.as_str());
        let answer = self.blocking.wait("XREAD", &command, wait).await?;
        streams::by_stream(Reply::new("XREAD", answer))?
            .into_iter()
            .flat_map(|(_, entries)| entries)
            .map(entry)
            .collect()
    }

    async fn is_over(&mut self) -> Result<bool, QueueError> {
        let answer = self
            .blocking
            .ask("EXISTS", Cmd::new().arg("EXISTS").arg(&self.result))
            .await?;
        Ok(Reply::new("EXISTS", answer).number::<u8>()? == 1)
    }
}

fn entry(entry: StreamEntry) -> Result<LogEntry, QueueError> {
    let word = entry.text("stream").unwrap_or_default();
    let stream = match word {
        "stdout" => LogStream::Stdout,
        "stderr" => LogStream::Stderr,
        "end" => {
            return Ok(LogEntry::End {
                outcome: entry
                    .text("outcome")
                    .map(|outcome| record::known(outcome, Outcome::ALL, Outcome::as_str))
                    .transpose()?,
            });
        }
        other => return Err(super::reply::unknown_word("XREAD", other)),
    };
    Ok(LogEntry::Chunk {
        stream,
        data: entry.field("data").unwrap_or_default().to_vec(),
        attempt: entry
            .text("attempt")
            .and_then(|attempt| attempt.parse().ok())
            .unwrap_or(1),
        after: LogPosition(entry.id),
    })
}
