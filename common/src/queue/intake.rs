//! Reading the public intake stream.

use std::time::Duration;

use redis::Value;
use tokio::time::Instant;

use super::blocking::Blocking;
use super::reply::Reply;
use super::streams::{self, StreamEntry};
use super::ticket::make_group;
use super::{Queue, QueueError, Unblocker, link};
use crate::id::WorkerId;
use crate::keys::ADMIT_GROUP;
use crate::units::Millis;

/// How long an entry may be in an admitter's hands before another takes it up. Admitting takes milliseconds.
const ABANDONED: Millis = Millis(10_000);

/// How often a reader looks for abandoned entries.
const RECOVER_EVERY: Duration = Duration::from_secs(5);

/// The stream id of an intake entry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EntryId(String);

impl EntryId {
    /// The id as Redis wrote it. It is a valid job id, and is one when the submitter named none.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for EntryId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// One entry of the intake stream, as it came: hostile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntakeEntry {
    /// Its stream id.
    pub id: EntryId,
    /// Its fields, in order.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
}

impl From<StreamEntry> for IntakeEntry {
    fn from(entry: StreamEntry) -> Self {
        Self {
            id: EntryId(entry.id),
            fields: entry.fields,
        }
    }
}

impl Queue {
    /// A reader of the intake stream that reads in `worker`'s name, with a connection of its own.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn intake_reader(&self, worker: &WorkerId) -> Result<IntakeReader, QueueError> {
        Ok(IntakeReader {
            blocking: Blocking::open(&self.link).await?,
            jobs: self.keys.jobs(),
            worker: worker.clone(),
            cursor: FIRST.to_owned(),
            recovered: None,
        })
    }
}

const FIRST: &str = "0-0";

/// Reads the intake stream.
#[derive(Debug)]
pub struct IntakeReader {
    blocking: Blocking,
    jobs: String,
    worker: WorkerId,
    /// Where looking for abandoned entries goes on.
    cursor: String,
    /// When it last came to its end.
    recovered: Option<Instant>,
}

impl IntakeReader {
    /// At most `most` entries, waiting at most `block` for the first; empty when none came. Each must be handed to
    /// [`Queue::admit`] or [`Queue::done`]; what an admitter read and never settled is read again after ten seconds.
    ///
    /// # Cancel safety
    /// Not safe: entries read by a dropped call are delayed until they are recovered. End it with the unblocker.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn next(
        &mut self,
        most: usize,
        block: Duration,
    ) -> Result<Vec<IntakeEntry>, QueueError> {
        let _reading = self.blocking.enter();
        if self.blocking.is_unblocked() {
            return Ok(Vec::new());
        }
        if self
            .recovered
            .is_none_or(|last| last.elapsed() >= RECOVER_EVERY)
        {
            let abandoned = self.recover(ABANDONED, most).await?;
            if !abandoned.is_empty() {
                return Ok(abandoned);
            }
        }
        let found = self.read(most, block).await?;
        if found.is_empty() {
            // The wait has ended, so a request to end it has been met.
            self.blocking.is_unblocked();
        }
        Ok(found)
    }

    /// Takes over at most `most` entries that have been in somebody's hands for `idle`, this reader's included.
    /// Empty once there are none. [`IntakeReader::next`] does this by itself now and then.
    ///
    /// # Cancel safety
    /// As [`IntakeReader::next`].
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn recover(
        &mut self,
        idle: Millis,
        most: usize,
    ) -> Result<Vec<IntakeEntry>, QueueError> {
        loop {
            let mut command = redis::cmd("XAUTOCLAIM");
            command
                .arg(&self.jobs)
                .arg(ADMIT_GROUP)
                .arg(self.worker.as_str())
                .arg(idle.0)
                .arg(&self.cursor)
                .arg("COUNT")
                .arg(most);
            let answer = match self.blocking.ask("XAUTOCLAIM", &command).await {
                Err(QueueError::Command { source, .. }) if link::is_missing_group(&source) => {
                    self.make_group().await?;
                    continue;
                }
                other => other?,
            };
            let mut parts = Reply::new("XAUTOCLAIM", answer).parts()?;
            // One call looks at a window only; the cursor is followed until it is back at the beginning.
            self.cursor = parts.part()?.text()?;
            let at_end = self.cursor == FIRST;
            if at_end {
                self.recovered = Some(Instant::now());
            }
            let entries = streams::entries(parts.part()?)?;
            if at_end || !entries.is_empty() {
                return Ok(entries.into_iter().map(IntakeEntry::from).collect());
            }
        }
    }

    /// A handle that ends a read from another task.
    #[must_use]
    pub fn unblocker(&self) -> Unblocker {
        self.blocking.unblocker()
    }

    async fn read(&mut self, most: usize, wait: Duration) -> Result<Vec<IntakeEntry>, QueueError> {
        loop {
            let mut command = redis::cmd("XREADGROUP");
            command
                .arg("GROUP")
                .arg(ADMIT_GROUP)
                .arg(self.worker.as_str())
                .arg("COUNT")
                .arg(most);
            if let Some(block) = streams::block(wait) {
                command.arg("BLOCK").arg(block);
            }
            command.arg("STREAMS").arg(&self.jobs).arg(">");
            let answer = match self.blocking.wait("XREADGROUP", &command, wait).await {
                Err(QueueError::Command { source, .. }) if link::is_missing_group(&source) => {
                    self.make_group().await?;
                    continue;
                }
                other => other?,
            };
            let streams = streams::by_stream(Reply::new("XREADGROUP", answer))?;
            return Ok(streams
                .into_iter()
                .flat_map(|(_, entries)| entries)
                .map(IntakeEntry::from)
                .collect());
        }
    }

    async fn make_group(&mut self) -> Result<Value, QueueError> {
        make_group(&mut self.blocking, &self.jobs, ADMIT_GROUP).await
    }
}
