//! Reads the public intake stream, whose entries may be of any size.
//!
//! A reader receives a bounded number of bytes: `intake.lua` measures each entry inside Redis and
//! returns an excerpt of an entry that is too large. A blocking read would return the whole entry.
//! So the reader waits with a read whose answer the server suppresses (`CLIENT REPLY SKIP`), and
//! then calls the script on the same connection, which returns the entries that the wait delivered.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::blocking::BlockingConnection;
use crate::keys::{ADMIT_GROUP, Keys};
use crate::resp::RespValue;
use crate::script::{INTAKE, ScriptCall};
use crate::stream_entry;
use crate::{Queue, QueueError, Unblocker};
use sandhog_core::id::WorkerId;
use sandhog_core::submission::{Intake, IntakeError};
use sandhog_core::units::{ByteCount, Millis};
use sandhog_core::wire::MAX_PAYLOAD;

/// Time after which an entry that an admitter has read and not settled is taken over. Admission
/// takes milliseconds.
const ABANDONED_AFTER: Millis = Millis(10_000);

/// Interval of a reader's checks for abandoned entries.
const RECOVERY_INTERVAL: Duration = Duration::from_secs(5);

/// Bytes that all fields of an entry together may have beyond the largest payload. Each field
/// counts with its own bytes and 64 more.
const ENTRY_ALLOWANCE: ByteCount = ByteCount(64 << 10);

/// Maximum bytes of the entries returned by one call; a single entry may have more.
const BATCH_BYTES: u64 = 4 << 20;

/// Deliveries of one entry to admitters that did not settle it; after them the entry is rejected
/// unread.
const DELIVERIES_MAX: u64 = 3;

/// The stream id of an intake entry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EntryId(String);

impl EntryId {
    /// Returns the id as Redis wrote it. It is a valid job id, and becomes the job's id if the
    /// submitter gave none.
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

/// One entry of the intake stream, as it was received. Its content is untrusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntakeEntry {
    /// Its stream id.
    pub id: EntryId,
    /// Its fields, in order. Of an entry that is too large, only the fields that its rejection
    /// needs.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    /// Bytes of all its fields, plus 64 for each field.
    size: ByteCount,
    /// Maximum size of an entry for this reader.
    most: ByteCount,
    /// Number of times that it was delivered to an admitter, this time included.
    deliveries: u64,
}

impl IntakeEntry {
    /// Reads the entry's fields. `cap` bounds the payload.
    ///
    /// # Errors
    /// Fails when the entry is too large, when three admitters received it and did not settle it,
    /// and when it is malformed. The error describes the first fault.
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
    /// Opens a reader of the intake stream that reads in `worker`'s name, with a connection of its
    /// own. It accepts payloads of at most 1 MiB.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached.
    pub async fn intake_reader(&self, worker: &WorkerId) -> Result<IntakeReader, QueueError> {
        Ok(IntakeReader {
            blocking: BlockingConnection::open(&self.connection).await?,
            keys: Arc::clone(&self.keys),
            worker: worker.clone(),
            most: entry_limit(MAX_PAYLOAD),
            last: None,
            recovered: None,
            was_full: false,
        })
    }
}

/// The two numbers of a stream id, in the order in which Redis compares them.
type Position = (u64, u64);

fn position(id: &str) -> Option<Position> {
    let (ms, seq) = id.split_once('-')?;
    Some((ms.parse().ok()?, seq.parse().ok()?))
}

/// Returns the maximum size of an entry if a payload may have `cap` bytes.
fn entry_limit(cap: ByteCount) -> ByteCount {
    ByteCount(cap.0.saturating_add(ENTRY_ALLOWANCE.0))
}

/// Reads the intake stream.
#[derive(Debug)]
pub struct IntakeReader {
    blocking: BlockingConnection,
    keys: Arc<Keys>,
    worker: WorkerId,
    /// Maximum size of an entry.
    most: ByteCount,
    /// The last entry that was returned, once there was a call. A later entry that is pending for
    /// this reader was delivered by a wait.
    last: Option<Position>,
    /// Time of the last check for abandoned entries.
    recovered: Option<Instant>,
    /// True if the last call returned as much as it may, so there are probably more entries.
    was_full: bool,
}

impl IntakeReader {
    /// Returns the same reader, for payloads of at most `cap`.
    #[must_use]
    pub fn with_max_payload(mut self, cap: ByteCount) -> Self {
        self.most = entry_limit(cap);
        self
    }

    /// Returns at most `most` entries, of bounded size together. Waits at most `block` for the
    /// first; empty when none came. Each entry must be passed to [`Queue::admit`] or
    /// [`Queue::done`]. An entry that an admitter read and did not settle is read again after ten
    /// seconds.
    ///
    /// # Cancel safety
    /// Not safe: entries read by a dropped call are delayed until they are recovered. End the call
    /// with the unblocker.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached.
    pub async fn next(
        &mut self,
        most: usize,
        block: Duration,
    ) -> Result<Vec<IntakeEntry>, QueueError> {
        let _call = self.blocking.enter();
        if self.blocking.is_unblocked() {
            return Ok(Vec::new());
        }
        let due = self
            .recovered
            .is_none_or(|last| last.elapsed() >= RECOVERY_INTERVAL);
        let abandoned = due.then_some(ABANDONED_AFTER);
        let block = stream_entry::block(block).filter(|_| !self.was_full);
        let mut found = Vec::new();
        if self.last.is_none() {
            // Entries that an earlier process of the same worker name left pending come first.
            found = self.call(most, true, abandoned, None).await?;
        }
        if found.is_empty() {
            found = self.call(most, true, abandoned, block).await?;
        }
        if due {
            self.recovered = Some(Instant::now());
        }
        if found.is_empty() {
            // The wait has ended, so a pending request to end it is satisfied.
            self.blocking.is_unblocked();
        }
        Ok(found)
    }

    /// Takes over at most `most` entries that an admitter, this reader included, has held for
    /// `idle`. Empty if there are none. [`IntakeReader::next`] also does this from time to time.
    ///
    /// # Cancel safety
    /// As [`IntakeReader::next`].
    ///
    /// # Errors
    /// Fails when Redis cannot be reached.
    pub async fn recover(
        &mut self,
        idle: Millis,
        most: usize,
    ) -> Result<Vec<IntakeEntry>, QueueError> {
        self.call(most, false, Some(idle), None).await
    }

    /// Returns a handle that ends a read from another task.
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
        let call: ScriptCall = INTAKE
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
        let mut parts = RespValue::new("intake", answer).parts()?;
        let mut entries = Vec::new();
        let mut bytes = 0;
        let mut last = self.last.unwrap_or_default();
        while let Some(id) = parts.next() {
            let id = id.text()?;
            let deliveries = parts.part()?.number()?;
            let size = ByteCount(parts.part()?.number()?);
            let fields = stream_entry::pairs(parts.part()?)?;
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
