//! Queues dead letters again, or drops them: one by its job, or all that match a filter.

use crate::dead::LetterOrder;
use crate::resp::{RespValue, unknown_word};
use crate::script::{DROP, REQUEUE, SCRIPT_BATCH, Script};
use crate::{DeadFilter, DeadLetter, Queue, QueueError};
use sandhog_core::id::JobId;

/// Result of a request to queue a dead letter again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequeueReply {
    /// The job waits for a worker again, with all its attempts and without a result.
    Requeued,
    /// The job exists and is not a dead letter. A repeated call returns this too.
    NotDead,
    /// The job is a dead letter without a payload: it was rejected at the intake, or the letter was
    /// dropped.
    NoPayload,
    /// Another job now holds its unique key.
    KeyHeld,
    /// The job is unknown; its record may have expired.
    Unknown,
}

/// Result of a request to drop a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropReply {
    /// The letter is deleted.
    Dropped,
    /// There is no such letter. A repeated call returns this too.
    Unknown,
}

/// Result of a sweep over dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SweepReport {
    /// Letters that were queued again or dropped.
    pub done: u64,
    /// Letters that match and were left unchanged, because they have no payload or another job
    /// holds their unique key.
    pub left: u64,
}

impl Queue {
    /// Queues a job's dead letter again, with all attempts, without a time to live, and behind the
    /// jobs submitted before now. The same step deletes its old result and log, so that the job has
    /// at most one result.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached.
    pub async fn requeue(&self, id: &JobId) -> Result<RequeueReply, QueueError> {
        let words = self.run_on_letters(&REQUEUE, &[(id.as_str(), "")]).await?;
        words
            .first()
            .map_or(Ok(RequeueReply::Unknown), |word| requeued(word))
    }

    /// Queues every dead letter that matches again, oldest first, except those written while this
    /// runs.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached; letters handled before that stay as they are.
    pub async fn requeue_all(&self, filter: &DeadFilter) -> Result<SweepReport, QueueError> {
        self.sweep(filter, &REQUEUE, |word| {
            Ok(requeued(word)? == RequeueReply::Requeued)
        })
        .await
    }

    /// Drops a job's dead letter: it is no longer listed and cannot be queued again. The job's
    /// result stays.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached.
    pub async fn drop_dead(&self, id: &JobId) -> Result<DropReply, QueueError> {
        let Some(found) = self.dead_letter(id).await? else {
            return Ok(DropReply::Unknown);
        };
        let words = self
            .run_on_letters(&DROP, &[(id.as_str(), found.letter.as_str())])
            .await?;
        words
            .first()
            .map_or(Ok(DropReply::Unknown), |word| dropped(word))
    }

    /// Drops every dead letter that matches, except those written while this runs.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached; letters handled before that stay as they are.
    pub async fn drop_all_dead(&self, filter: &DeadFilter) -> Result<SweepReport, QueueError> {
        self.sweep(filter, &DROP, |word| {
            Ok(dropped(word)? == DropReply::Dropped)
        })
        .await
    }

    async fn sweep(
        &self,
        filter: &DeadFilter,
        script: &'static Script,
        counts: fn(&str) -> Result<bool, QueueError>,
    ) -> Result<SweepReport, QueueError> {
        let mut swept = SweepReport::default();
        let Some(end) = self.newest_letter().await? else {
            return Ok(swept);
        };
        let mut from = None;
        loop {
            let read = self
                .read_letters(LetterOrder::OldestFirst, from.as_ref(), Some(&end))
                .await?;
            let Some(last) = read.last else {
                return Ok(swept);
            };
            let fitting: Vec<(&str, &str)> = read
                .letters
                .iter()
                .filter(|letter| filter.matches(letter))
                .map(|DeadLetter { id, letter, .. }| (id.as_str(), letter.as_str()))
                .collect();
            for word in self.run_on_letters(script, &fitting).await? {
                if counts(&word)? {
                    swept.done += 1;
                } else {
                    swept.left += 1;
                }
            }
            from = Some(last);
        }
    }

    /// Runs a script over jobs and their letters. Returns one word for each.
    async fn run_on_letters(
        &self,
        script: &'static Script,
        letters: &[(&str, &str)],
    ) -> Result<Vec<String>, QueueError> {
        let mut words = Vec::with_capacity(letters.len());
        for chunk in letters.chunks(SCRIPT_BATCH) {
            let mut call = script.call(self.keys.prefix());
            for (id, letter) in chunk {
                call.push(*id);
                call.push(*letter);
            }
            for word in RespValue::new(script.name(), call.run(&self.connection).await?).parts()? {
                words.push(word.text()?);
            }
        }
        Ok(words)
    }
}

fn requeued(word: &str) -> Result<RequeueReply, QueueError> {
    match word {
        "requeued" => Ok(RequeueReply::Requeued),
        "not_dead" => Ok(RequeueReply::NotDead),
        "no_payload" => Ok(RequeueReply::NoPayload),
        "key_held" => Ok(RequeueReply::KeyHeld),
        "unknown" => Ok(RequeueReply::Unknown),
        other => Err(unknown_word("requeue", other)),
    }
}

fn dropped(word: &str) -> Result<DropReply, QueueError> {
    match word {
        "dropped" => Ok(DropReply::Dropped),
        "unknown" => Ok(DropReply::Unknown),
        other => Err(unknown_word("drop", other)),
    }
}
