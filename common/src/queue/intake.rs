//! Reading the public intake stream, whose entries may be of any size.
//!
//! A reader never receives more than a bounded number of bytes: `intake.lua` weighs each entry
//! inside Redis and hands out an excerpt of one that is too large. A blocking read would answer
//! with the whole entry, so the wait is a read whose answer the server is told to leave out
//! (`CLIENT REPLY SKIP`), and the script behind it in the same connection fetches what the wait
//! delivered.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::blocking::Blocking;
use super::reply::Reply;
use super::script::{Call, INTAKE};
use super::streams;
use super::{Queue, QueueError, Unblocker};
use crate::id::WorkerId;
use crate::keys::{ADMIT_GROUP, Keys};
use crate::submission::{Intake, IntakeError};
use crate::units::{ByteCount, Millis};
use crate::wire::MAX_PAYLOAD;

/// How long an entry may be in an admitter's hands before another takes it up. Admitting takes milliseconds.
const ABANDONED: Millis = Millis(10_000);

/// How often a reader looks for abandoned entries.
const RECOVER_EVERY: Duration = Duration::from_secs(5);

/// Bytes that all fields of an entry together may have beyond the largest payload; each field
/// counts 64 bytes more than it holds.
const ENTRY_ALLOWANCE: ByteCount = ByteCount(64 << 10);

/// Bytes of entries handed to a reader at once; a single entry may have more.
const BATCH_BYTES: u64 = 4 << 20;

/// Deliveries of one entry to admitters that did not settle it, after which it is rejected unread.
const DELIVERIES_MAX: u64 = 3;

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
    /// Its fields, in order; of an entry that is too large just those that its rejection needs.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    /// The bytes of all its fields, and 64 for each.
    size: ByteCount,
    /// The most bytes that an entry may have here.
    most: ByteCount,
    /// Admitters that it was handed to, this one included.
    deliveries: u64,
}

impl IntakeEntry {
    /// Reads the entry's fields. `cap` bounds the payload.
    ///
    /// # Errors
    /// Fails when the entry is too large, was handed to three admitters that did not settle it, or
    /// is malformed: names the first thing that is wrong.
    pub fn parse(&self, cap: ByteCount) -> Result<Intake, IntakeError> {
        if self.size > self.most {
            return Err(IntakeError::EntryTooLarge {
                size: self.size,
                most: self.most,
            });
        }
        if self.deliveries > DELIVERIES_MAX {
            return Err(IntakeError::NotAdmitted {
                deliveries: DELIVERIES_MAX,
            });
        }
        Intake::parse(&self.fields, cap)
    }
}

impl Queue {
    /// A reader of the intake stream that reads in `worker`'s name, with a connection of its own.
    /// It takes payloads of at most 1 MiB.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn intake_reader(&self, worker: &WorkerId) -> Result<IntakeReader, QueueError> {
        Ok(IntakeReader {
            blocking: Blocking::open(&self.link).await?,
            keys: Arc::clone(&self.keys),
            worker: worker.clone(),
            most: entry_most(MAX_PAYLOAD),
            last: None,
            recovered: None,
            was_full: false,
        })
    }
}

/// The two numbers of a stream id, by which ids are ordered.
type Position = (u64, u64);

fn position(id: &str) -> Option<Position> {
    let (ms, seq) = id.split_once('-')?;
    Some((ms.parse().ok()?, seq.parse().ok()?))
}

/// The most bytes that one entry may have where payloads may have `cap`.
fn entry_most(cap: ByteCount) -> ByteCount {
    ByteCount(cap.0.saturating_add(ENTRY_ALLOWANCE.0))
}

/// Reads the intake stream.
#[derive(Debug)]
pub struct IntakeReader {
    blocking: Blocking,
    keys: Arc<Keys>,
    worker: WorkerId,
    /// The most bytes that one entry may have.
    most: ByteCount,
    /// The last entry that was handed out, once there was a call; a later one that is pending here
    /// was delivered by a wait.
    last: Option<Position>,
    /// Time of the last look for abandoned entries.
    recovered: Option<Instant>,
    /// The last call handed out as much as it may, so there is probably more.
    was_full: bool,
}

impl IntakeReader {
    /// The same reader, for payloads of at most `cap`.
    #[must_use]
    pub fn with_max_payload(mut self, cap: ByteCount) -> Self {
        self.most = entry_most(cap);
        self
    }

    /// At most `most` entries of bounded bytes together, waiting at most `block` for the first;
    /// empty when none came. Each must be handed to [`Queue::admit`] or [`Queue::done`]; an entry
    /// that an admitter read and never settled is read again after ten seconds.
    ///
    /// # Cancel safety
    /// Not safe: entries read by a dropped call are delayed until they are recovered. End it with
    /// the unblocker.
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
        let due = self
            .recovered
            .is_none_or(|last| last.elapsed() >= RECOVER_EVERY);
        let abandoned = due.then_some(ABANDONED);
        let block = streams::block(block).filter(|_| !self.was_full);
        let mut found = Vec::new();
        if self.last.is_none() {
            // What another process of this worker's name left pending comes first.
            found = self.call(most, true, abandoned, None).await?;
        }
        if found.is_empty() {
            found = self.call(most, true, abandoned, block).await?;
        }
        if due {
            self.recovered = Some(Instant::now());
        }
        if found.is_empty() {
            // The wait has ended, so a request to end it has been met.
            self.blocking.is_unblocked();
        }
        Ok(found)
    }

    /// Takes over at most `most` entries that have been in an admitter's hands for `idle`, this
    /// reader's included. Empty once there are none. [`IntakeReader::next`] does this by itself now
    /// and then.
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
        self.call(most, false, Some(idle), None).await
    }

    /// A handle that ends a read from another task.
    #[must_use]
    pub fn unblocker(&self) -> Unblocker {
        self.blocking.unblocker()
    }

    /// Calls the script once, after waiting at most `block` ms for a new entry.
    async fn call(
        &mut self,
        most: usize,
        take_new: bool,
        abandoned: Option<Millis>,
        block: Option<u64>,
    ) -> Result<Vec<IntakeEntry>, QueueError> {
        let call: Call = INTAKE
            .call(self.keys.prefix())
            .arg(self.worker.as_str())
            .arg(most)
            .arg(BATCH_BYTES.max(self.most.0))
            .arg(self.most.0)
            .arg(
                self.last
                    .map_or_else(String::new, |(ms, seq)| format!("{ms}-{seq}")),
            )
            .arg(u8::from(take_new))
            .arg(abandoned.map_or_else(String::new, |idle| idle.0.to_string()));
        let wait = block.map(|block| {
            let mut read = redis::cmd("XREADGROUP");
            read.arg("GROUP")
                .arg(ADMIT_GROUP)
                .arg(self.worker.as_str())
                .arg("COUNT")
                .arg(1)
                .arg("BLOCK")
                .arg(block)
                .arg("STREAMS")
                .arg(self.keys.jobs())
                .arg(">");
            (read, Duration::from_millis(block))
        });
        let answer = call.run_after(&mut self.blocking, wait).await?;
        let mut parts = Reply::new("intake", answer).parts()?;
        let mut entries = Vec::new();
        let mut bytes = 0;
        let mut last = self.last.unwrap_or_default();
        while let Some(id) = parts.next() {
            let id = id.text()?;
            let deliveries = parts.part()?.number()?;
            let size = ByteCount(parts.part()?.number()?);
            let fields = streams::pairs(parts.part()?)?;
            bytes += size.0;
            last = last.max(position(&id).unwrap_or_default());
            entries.push(IntakeEntry {
                id: EntryId(id),
                fields,
                size,
                most: self.most,
                deliveries,
            });
        }
        if take_new {
            self.last = Some(last);
        }
        self.was_full = entries.len() >= most || bytes >= BATCH_BYTES;
        Ok(entries)
    }
}
