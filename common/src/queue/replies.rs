//! Reply streams: the results of many jobs, read by one connection.
//!
//! A reply stream is a convenience over the results themselves: it is trimmed when nobody reads it, and a Redis that
//! lost its last moments may have lost some of it. A reader says when entries may have gone by unseen; whoever waits
//! for a job then looks for its result.

use std::time::Duration;

use super::blocking::Blocking;
use super::reply::Reply;
use super::streams::{self, StreamEntry};
use super::{Queue, QueueError, Unblocker, link, record};
use crate::id::{JobId, ReplyName};
use crate::outcome::Outcome;

/// How many entries are read at once: each may hold a result of some MiB.
const TOGETHER: usize = 64;

/// Size of a result that may have made others leave the stream, as `ending.lua` has it.
const LARGE: usize = 4_096;

/// How many entries are read before those read are taken out of the stream.
const TRIM_EVERY: usize = 1_024;

/// A place before every entry.
const START: &str = "0-0";

/// The end of one job, as a reply stream tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobReply {
    /// The job.
    pub id: JobId,
    /// How it ended.
    pub outcome: Outcome,
    /// Its result, encoded.
    pub result: Vec<u8>,
}

/// What one read found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReplyBatch {
    /// In order; empty when nothing came in time.
    pub replies: Vec<JobReply>,
    /// Whether others may have gone by unseen.
    pub gap: bool,
}

impl Queue {
    /// A reader of a reply stream from its beginning, with a connection of its own.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn reply_reader(&self, name: &ReplyName) -> Result<ReplyReader, QueueError> {
        Ok(ReplyReader {
            blocking: Blocking::open(&self.link).await?,
            key: self.keys.reply(name),
            after: START.to_owned(),
            doubtful: false,
            untrimmed: 0,
            may_trim: true,
        })
    }
}

/// Reads one reply stream, and takes what it has read out of it where its user may.
#[derive(Debug)]
pub struct ReplyReader {
    blocking: Blocking,
    key: String,
    /// The last entry read.
    after: String,
    /// Whether entries may have been lost since the last read: the connection broke.
    doubtful: bool,
    /// How many entries have been read since the last were taken out.
    untrimmed: usize,
    may_trim: bool,
}

impl ReplyReader {
    /// Leaves the entries that are read in the stream, for other readers.
    pub fn leave_entries(&mut self) {
        self.may_trim = false;
    }

    /// The replies since the last call, waiting at most `block` for the first.
    ///
    /// # Cancel safety
    /// Safe: what a dropped call had read is read again.
    ///
    /// # Errors
    /// When Redis cannot be reached; the next call goes on, and says that there may be a gap.
    pub async fn next(&mut self, block: Duration) -> Result<ReplyBatch, QueueError> {
        let _reading = self.blocking.enter();
        if self.blocking.is_unblocked() {
            return Ok(ReplyBatch::default());
        }
        let read = self.read(block).await;
        if read.is_err() {
            self.doubtful = true;
        }
        read
    }

    /// A handle that ends a wait from another task.
    #[must_use]
    pub fn unblocker(&self) -> Unblocker {
        self.blocking.unblocker()
    }

    async fn read(&mut self, block: Duration) -> Result<ReplyBatch, QueueError> {
        let mut gap = self.doubtful;
        let mut wait = block;
        if self.doubtful {
            self.step_back().await?;
            // Whoever reads shall hear of the gap now.
            wait = Duration::ZERO;
        }
        let entries = self.entries(TOGETHER, &self.after.clone(), wait).await?;
        let is_large = |entry: &StreamEntry| {
            (entry.field("result")).is_some_and(|result| result.len() >= LARGE)
        };
        if entries.len() == TOGETHER || entries.iter().any(is_large) {
            // Entries after the last read may have left the stream: by their number, which a reader
            // notices that is far behind, or by their bytes, which large ones bring about.
            let first = self.entries(1, START, Duration::ZERO).await?;
            gap |= first
                .first()
                .is_none_or(|first| place(&first.id) > place(&self.after));
        }
        self.doubtful = false;
        if let Some(last) = entries.last() {
            self.after.clone_from(&last.id);
        }
        self.untrimmed += entries.len();
        if self.untrimmed >= TRIM_EVERY || (entries.is_empty() && self.untrimmed > 0) {
            self.trim().await?;
        }
        if entries.is_empty() {
            // The wait has ended, so a request to end it has been met.
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
        if let Some(block) = streams::block(wait) {
            command.arg("BLOCK").arg(block);
        }
        command.arg("STREAMS").arg(&self.key).arg(after);
        let answer = self.blocking.wait("XREAD", &command, wait).await?;
        Ok(streams::by_stream(Reply::new("XREAD", answer))?
            .into_iter()
            .flat_map(|(_, entries)| entries)
            .collect())
    }

    /// A server that lost its last moments may give out ids again that we have passed: begins anew then.
    async fn step_back(&mut self) -> Result<(), QueueError> {
        let mut command = redis::cmd("XREVRANGE");
        command.arg(&self.key).arg(&["+", "-", "COUNT", "1"]);
        let answer = match self.blocking.ask("XREVRANGE", &command).await {
            // A reader without the right to look stays where it is.
            Err(QueueError::Command { source, .. }) if link::is_forbidden(&source) => return Ok(()),
            other => other?,
        };
        let last = streams::entries(Reply::new("XREVRANGE", answer))?.pop();
        let top = last.map_or_else(|| START.to_owned(), |entry| entry.id);
        if place(&top) < place(&self.after) {
            START.clone_into(&mut self.after);
        }
        Ok(())
    }

    /// Takes out what has been read, but for the last: as long as that is the first of the stream, nothing is missing.
    async fn trim(&mut self) -> Result<(), QueueError> {
        self.untrimmed = 0;
        if !self.may_trim {
            return Ok(());
        }
        let mut command = redis::cmd("XTRIM");
        command.arg(&self.key).arg("MINID").arg(&self.after);
        match self.blocking.ask("XTRIM", &command).await {
            Err(QueueError::Command { source, .. }) if link::is_forbidden(&source) => {
                self.may_trim = false;
                Ok(())
            }
            other => other.map(drop),
        }
    }
}

/// An entry as the queue writes it; none where somebody else wrote another.
fn reply(entry: &StreamEntry) -> Option<JobReply> {
    Some(JobReply {
        id: entry.text("id")?.parse().ok()?,
        outcome: record::known(entry.text("outcome")?, Outcome::ALL, Outcome::as_str).ok()?,
        result: entry.field("result")?.to_vec(),
    })
}

/// A stream id as numbers, which compare as Redis compares them.
pub(super) fn place(id: &str) -> (u64, u64) {
    let (ms, seq) = id.split_once('-').unwrap_or((id, "0"));
    (ms.parse().unwrap_or(0), seq.parse().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_compare_as_numbers() {
        assert!(place("10-2") < place("10-11"));
        assert!(place("9-5") < place("10-0"));
        assert_eq!(place(START), (0, 0));
    }
}
