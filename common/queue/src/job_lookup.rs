//! Looks up jobs that have no result yet: they may be queued or running, in the intake, or unknown.

use crate::resp::RespValue;
use crate::{Queue, QueueError, redis_error, reply_reader, stream_entry};
use sandhog_core::id::{JobId, ReplyName};

/// Maximum number of jobs of one pipeline.
const PIPELINE_BATCH: usize = 256;

/// Result of looking up one job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobLookup {
    /// The job has a record or a result.
    Known,
    /// The job has neither, and the intake holds entries that may be the job.
    PerhapsSubmitted,
    /// The job has neither, and no entry of the intake is the job.
    Unknown,
    /// The user lacks the permission to look.
    Forbidden,
}

/// End of the intake at the first lookup. Once the entries up to it are admitted, none of
/// the remaining entries is a job that was submitted before that lookup.
#[derive(Debug, Clone, Default)]
pub struct IntakeTail(Option<String>);

impl Queue {
    /// Looks up jobs. Returns one answer for each, in order. If each call gets the same `tail`, a
    /// job that was submitted before the first call is never reported as unknown.
    ///
    /// # Errors
    /// Fails if Redis cannot be reached.
    pub async fn look_up(
        &self,
        ids: &[JobId],
        tail: &mut IntakeTail,
    ) -> Result<Vec<JobLookup>, QueueError> {
        let seen = async {
            // The intake is read first: an entry leaves it in the same step that creates the job's
            // record.
            let is_admitted = self.is_admitted(tail).await?;
            let mut seen = Vec::with_capacity(ids.len());
            for is_known in self.are_known(ids).await? {
                seen.push(match (is_known, is_admitted) {
                    (true, _) => JobLookup::Known,
                    (false, true) => JobLookup::Unknown,
                    (false, false) => JobLookup::PerhapsSubmitted,
                });
            }
            Ok::<_, QueueError>(seen)
        };
        match seen.await {
            Err(error) if error.is_forbidden() => Ok(vec![JobLookup::Forbidden; ids.len()]),
            seen => seen,
        }
    }

    /// Returns how many entries have left a reply stream since it was created. `None` if the user
    /// may not query it or the stream does not exist.
    ///
    /// # Errors
    /// Fails if Redis cannot be reached.
    pub async fn reply_entries_removed(&self, name: &ReplyName) -> Result<Option<u64>, QueueError> {
        let mut command = redis::cmd("XINFO");
        command.arg("STREAM").arg(self.keys.reply(name));
        let answer = match self.connection.run_repeatable("XINFO", &command).await {
            Err(QueueError::Command { source, .. })
                if redis_error::is_forbidden(&source)
                    || source.to_string().contains("no such key") =>
            {
                return Ok(None);
            }
            other => other?,
        };
        let mut parts = RespValue::new("XINFO", answer).parts()?;
        let (mut added, mut length) = (0, 0);
        while let Some(name) = parts.next() {
            let value = parts.part()?;
            match name.text()?.as_str() {
                "entries-added" => added = value.number::<u64>()?,
                "length" => length = value.number::<u64>()?,
                _other => {}
            }
        }
        Ok(Some(added.saturating_sub(length)))
    }

    async fn are_known(&self, ids: &[JobId]) -> Result<Vec<bool>, QueueError> {
        let mut known = Vec::with_capacity(ids.len());
        for chunk in ids.chunks(PIPELINE_BATCH) {
            let mut pipeline = redis::pipe();
            for id in chunk {
                let command = pipeline.cmd("EXISTS");
                command.arg(self.keys.job(id)).arg(self.keys.result(id));
            }
            for answer in self
                .connection
                .run_repeatable_pipeline("EXISTS", &pipeline)
                .await?
            {
                known.push(RespValue::new("EXISTS", answer).number::<u8>()? > 0);
            }
        }
        Ok(known)
    }

    /// Returns whether the intake's entries up to the tail are gone; the first call sets the tail.
    async fn is_admitted(&self, tail: &mut IntakeTail) -> Result<bool, QueueError> {
        match &tail.0 {
            None => {
                tail.0 = self.intake_end("XREVRANGE", "+", "-").await?;
                Ok(tail.0.is_none())
            }
            Some(last) => {
                let first = self.intake_end("XRANGE", "-", "+").await?;
                Ok(first.is_none_or(|first| {
                    reply_reader::stream_position(&first) > reply_reader::stream_position(last)
                }))
            }
        }
    }

    /// Returns the id of the intake's first or last entry.
    async fn intake_end(
        &self,
        command: &'static str,
        from: &str,
        to: &str,
    ) -> Result<Option<String>, QueueError> {
        let mut range = redis::cmd(command);
        range.arg(self.keys.jobs()).arg(&[from, to, "COUNT", "1"]);
        let answer = self.connection.run_repeatable(command, &range).await?;
        let last = stream_entry::entries(RespValue::new(command, answer))?.pop();
        Ok(last.map(|entry| entry.id))
    }
}
