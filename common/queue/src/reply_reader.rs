//! Reply streams: one connection reads the results of many jobs.
//!
//! A reply stream may be incomplete: it is trimmed if it is not read, and it may lose entries if
//! Redis loses its last writes. The reader reports when it may have missed entries. The caller then
//! looks up the results of the jobs that it waits for.

use std::time::Duration;

use crate::blocking::BlockingConnection;
use crate::resp::RespValue;
use crate::stream_entry::{self, StreamEntry};
use crate::{Queue, QueueError, Unblocker, record, redis_error};
use sandhog_core::id::{JobId, ReplyName};
use sandhog_core::outcome::Outcome;

/// Maximum number of entries of one read. Each may hold a result of some MiB.
const READ_BATCH: usize = 64;

/// Size in bytes from which a result may displace older entries of the stream; `terminal.lua` has
/// the same value.
const LARGE_RESULT_BYTES: usize = 4_096;

/// Number of entries that are read before the reader deletes them from the stream.
const TRIM_BATCH: usize = 1_024;

/// Stream id before every entry.
const STREAM_START: &str = "0-0";

/// The end of one job, as reported by a reply stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobReply {
    /// The job.
    pub id: JobId,
    /// Outcome of the job.
    pub outcome: Outcome,
    /// Its result, encoded.
    pub result: Vec<u8>,
}

/// Result of one read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReplyBatch {
    /// The replies, in order; empty when none came in time.
    pub replies: Vec<JobReply>,
    /// True if entries may have been missed.
    pub gap: bool,
}

impl Queue {
    /// Opens a reader of a reply stream from its beginning, with a connection of its own.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached.
    pub async fn reply_reader(&self, name: &ReplyName) -> Result<ReplyReader, QueueError> {
        Ok(ReplyReader {
            blocking: BlockingConnection::open(&self.connection).await?,
            key: self.keys.reply(name),
            after: STREAM_START.to_owned(),
            may_have_gap: false,
            untrimmed: 0,
            may_trim: true,
        })
    }
}

/// Reads one reply stream, and deletes the entries that it has read if its user may do so.
#[derive(Debug)]
pub struct ReplyReader {
    blocking: BlockingConnection,
    key: String,
    /// The last entry read.
    after: String,
    /// True if entries may have been lost since the last read, because the connection broke.
    may_have_gap: bool,
    /// Number of entries read since the last deletion.
    untrimmed: usize,
    may_trim: bool,
}

impl ReplyReader {
    /// Keeps the entries that are read in the stream, for other readers.
    pub fn leave_entries(&mut self) {
        self.may_trim = false;
    }

    /// Returns the replies since the last call. Waits at most `block` for the first.
    ///
    /// # Cancel safety
    /// Safe: the entries of a dropped call are read again.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached; the next call continues and reports that entries may
    /// have been missed.
    pub async fn next(&mut self, block: Duration) -> Result<ReplyBatch, QueueError> {
        let _call = self.blocking.enter();
        if self.blocking.is_unblocked() {
            return Ok(ReplyBatch::default());
        }
        let read = self.read(block).await;
        if read.is_err() {
            self.may_have_gap = true;
        }
        read
    }

    /// Returns a handle that ends a wait from another task.
    #[must_use]
    pub fn unblocker(&self) -> Unblocker {
        self.blocking.unblocker()
    }

    async fn read(&mut self, block: Duration) -> Result<ReplyBatch, QueueError> {
        let mut gap = self.may_have_gap;
        let mut wait = block;
        if self.may_have_gap {
            self.rewind_if_lost().await?;
            // The gap is reported at once, without waiting for entries.
            wait = Duration::ZERO;
        }
        let entries = self.entries(READ_BATCH, &self.after.clone(), wait).await?;
        let is_large = |entry: &StreamEntry| {
            (entry.field("result")).is_some_and(|result| result.len() >= LARGE_RESULT_BYTES)
        };
        if entries.len() == READ_BATCH || entries.iter().any(is_large) {
            // Entries after the last read may have left the stream: because of their number, if the
            // reader is far behind, or because of their bytes, if some are large.
            let first = self.entries(1, STREAM_START, Duration::ZERO).await?;
            gap |= first
                .first()
                .is_none_or(|first| stream_position(&first.id) > stream_position(&self.after));
        }
        self.may_have_gap = false;
        if let Some(last) = entries.last() {
            self.after.clone_from(&last.id);
        }
        self.untrimmed += entries.len();
        if self.untrimmed >= TRIM_BATCH || (entries.is_empty() && self.untrimmed > 0) {
            self.trim().await?;
        }
        if entries.is_empty() {
            // The wait has ended, so a pending request to end it is satisfied.
            self.blocking.is_unblocked();
        }
        let replies = entries
            .into_iter()
            .filter_map(|entry| reply(&entry))
            .collect();
        Ok(ReplyBatch { replies, gap })
    }

    async fn entries(
        &mut self,
        most: usize,
        after: &str,
        wait: Duration,
    ) -> Result<Vec<StreamEntry>, QueueError> {
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(most);
        if let Some(block) = stream_entry::block(wait) {
            command.arg("BLOCK").arg(block);
        }
        command.arg("STREAMS").arg(&self.key).arg(after);
        let answer = self.blocking.wait("XREAD", &command, wait).await?;
        Ok(stream_entry::by_stream(RespValue::new("XREAD", answer))?
            .into_iter()
            .flat_map(|(_, entries)| entries)
            .collect())
    }

    /// Checks whether the server lost its last writes and may assign ids again that the reader has
    /// passed. If so, reading begins again at the start of the stream.
    async fn rewind_if_lost(&mut self) -> Result<(), QueueError> {
        let mut command = redis::cmd("XREVRANGE");
        command.arg(&self.key).arg(&["+", "-", "COUNT", "1"]);
        let answer = match self.blocking.ask("XREVRANGE", &command).await {
            // A reader who may not use XREVRANGE keeps its position.
            Err(QueueError::Command { source, .. }) if redis_error::is_forbidden(&source) => {
                return Ok(());
            }
            other => other?,
        };
        let last = stream_entry::entries(RespValue::new("XREVRANGE", answer))?.pop();
        let top = last.map_or_else(|| STREAM_START.to_owned(), |entry| entry.id);
        if stream_position(&top) < stream_position(&self.after) {
            STREAM_START.clone_into(&mut self.after);
        }
        Ok(())
    }

    /// Deletes the entries that have been read, except the last. While that entry is the first of
    /// the stream, no entry is missing.
    async fn trim(&mut self) -> Result<(), QueueError> {
        self.untrimmed = 0;
        if !self.may_trim {
            return Ok(());
        }
        let mut command = redis::cmd("XTRIM");
        command.arg(&self.key).arg("MINID").arg(&self.after);
        match self.blocking.ask("XTRIM", &command).await {
            Err(QueueError::Command { source, .. }) if redis_error::is_forbidden(&source) => {
                self.may_trim = false;
                Ok(())
            }
            other => other.map(drop),
        }
    }
}

/// Decodes an entry of the queue. Returns `None` for an entry that another client wrote in another
/// form.
fn reply(entry: &StreamEntry) -> Option<JobReply> {
    Some(JobReply {
        id: entry.text("id")?.parse().ok()?,
        outcome: record::known(entry.text("outcome")?, Outcome::ALL, Outcome::as_str).ok()?,
        result: entry.field("result")?.to_vec(),
    })
}

/// Returns a stream id as numbers, which compare as Redis compares ids.
pub(crate) fn stream_position(id: &str) -> (u64, u64) {
    let (ms, seq) = id.split_once('-').unwrap_or((id, "0"));
    (ms.parse().unwrap_or(0), seq.parse().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_compare_as_numbers() {
        assert!(stream_position("10-2") < stream_position("10-11"));
        assert!(stream_position("9-5") < stream_position("10-0"));
        assert_eq!(stream_position(STREAM_START), (0, 0));
    }
}
