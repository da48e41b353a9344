//! Looks up jobs that have no result yet: they may be queued or running, in the intake, or unknown.

use super::reply::Reply;
use super::{Queue, QueueError, link, replies, streams};
use crate::id::{JobId, ReplyName};

/// Maximum number of jobs of one pipeline.
const TOGETHER: usize = 256;

/// Result of looking up one job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// The job has a record or a result.
    Known,
    /// The job has neither, and the intake holds entries that may be the job.
    PerhapsSubmitted,
    /// The job has neither, and no entry of the intake is the job.
    Unknown,
    /// The user lacks the permission to look.
    Forbidden,
}

/// End of the intake at the first lookup. Once the entries up to this mark are admitted, none of
/// the remaining entries is a job that was submitted before that lookup.
#[derive(Debug, Clone, Default)]
pub struct IntakeMark(Option<String>);

impl Queue {
    /// Looks up jobs. Returns one answer for each, in order. If each call gets the same `mark`, a
    /// job that was submitted before the first call is never reported as unknown.
    ///
    /// # Errors
    /// Fails if Redis cannot be reached.
    pub async fn sight(
        &self,
        ids: &[JobId],
        mark: &mut IntakeMark,
    ) -> Result<Vec<Sight>, QueueError> {
        let seen = async {
            // The intake is read first: an entry leaves it in the same step that creates the job's
            // record.
            let is_admitted = self.is_admitted(mark).await?;
            let mut seen = Vec::with_capacity(ids.len());
            for is_known in self.are_known(ids).await? {
                seen.push(match (is_known, is_admitted) {
                    (true, _) => Sight::Known,
                    (false, true) => Sight::Unknown,
                    (false, false) => Sight::PerhapsSubmitted,
                });
            }
            Ok::<_, QueueError>(seen)
        };
        match seen.await {
            Err(error) if error.is_forbidden() => Ok(vec![Sight::Forbidden; ids.len()]),
            seen => seen,
        }
    }

    /// Returns how many entries have left a reply stream since it was created. `None` if the user
    /// may not query it or the stream does not exist.
    ///
    /// # Errors
    /// Fails if Redis cannot be reached.
    pub async fn left_reply_stream(&self, name: &ReplyName) -> Result<Option<u64>, QueueError> {
        let mut command = redis::cmd("XINFO");
        command.arg("STREAM").arg(self.keys.reply(name));
        let answer = match self.link.repeatable("XINFO", &command).await {
            Err(QueueError::Command { source, .. })
                if link::is_forbidden(&source) || source.to_string().contains("no such key") =>
            {
                return Ok(None);
            }
            other => other?,
        };
        let mut parts = Reply::new("XINFO", answer).parts()?;
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
        for chunk in ids.chunks(TOGETHER) {
            let mut pipeline = redis::pipe();
            for id in chunk {
                let command = pipeline.cmd("EXISTS");
                command.arg(self.keys.job(id)).arg(self.keys.result(id));
            }
            for answer in self.link.repeatable_pipeline("EXISTS", &pipeline).await? {
                known.push(Reply::new("EXISTS", answer).number::<u8>()? > 0);
            }
        }
        Ok(known)
    }

    /// Returns whether the intake's entries up to the mark are gone; the first call sets the mark.
    async fn is_admitted(&self, mark: &mut IntakeMark) -> Result<bool, QueueError> {
        match &mark.0 {
            None => {
                mark.0 = self.intake_end("XREVRANGE", "+", "-").await?;
                Ok(mark.0.is_none())
            }
            Some(last) => {
                let first = self.intake_end("XRANGE", "-", "+").await?;
                Ok(first.is_none_or(|first| replies::place(&first) > replies::place(last)))
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
        let answer = self.link.repeatable(command, &range).await?;
        let last = streams::entries(Reply::new(command, answer))?.pop();
        Ok(last.map(|entry| entry.id))
    }
}
