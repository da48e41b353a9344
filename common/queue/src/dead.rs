//! Dead letters: lists the jobs that were given up.
//!
//! A letter is a stream entry, and it stays after the retention of the job's record has passed. A
//! job can be queued again only while its record holds its payload. Nothing in this module writes:
//! see [`Queue::requeue`] and [`Queue::drop_dead`].

use crate::resp::RespValue;
use crate::script::SCRIPT_BATCH;
use crate::stream_entry::{self, StreamEntry};
use crate::{Queue, QueueError};
use sandhog_core::class::Class;
use sandhog_core::id::{IdError, JobId, Tenant, clip};
use sandhog_core::units::UnixMillis;

/// The stream id of a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LetterId(String);

impl LetterId {
    /// The id as Redis wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Time at which the letter was written, by the clock of Redis.
    #[must_use]
    pub fn written_at(&self) -> UnixMillis {
        let ms = self.0.split('-').next().unwrap_or_default();
        UnixMillis(ms.parse().unwrap_or_default())
    }
}

impl std::str::FromStr for LetterId {
    type Err = String;

    /// Parses a stream id, in the form in which a page of letters names the next page.
    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('-');
        let is_number = |part: &str| part.parse::<u64>().is_ok();
        match parts {
            Some((ms, seq)) if is_number(ms) && is_number(seq) => Ok(Self(text.to_owned())),
            Some(_) | None => Err(format!(
                "letter {:?} is not valid (want two numbers separated by -)",
                clip(text, 80)
            )),
        }
    }
}

impl std::fmt::Display for LetterId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A job that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Position of the letter in the stream; a greater one is newer.
    pub letter: LetterId,
    /// The job.
    pub id: JobId,
    /// Reason, as an error code.
    pub reason: String,
    /// Reason, as a message for people.
    pub error: String,
    /// The job's class, which selects the workers that may run it.
    pub class: Class,
    /// The tenant that owns the job.
    pub tenant: Tenant,
    /// True if the job can be queued again, because its record still has its payload.
    pub requeueable: bool,
}

/// Filter for dead letters. A field that is `None` matches all letters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeadFilter {
    /// Matches letters with this error code.
    pub reason: Option<String>,
    /// Matches letters of this class.
    pub class: Option<Class>,
    /// Matches letters of this tenant.
    pub tenant: Option<Tenant>,
}

impl DeadFilter {
    /// Returns whether the filter matches this letter.
    #[must_use]
    pub fn matches(&self, letter: &DeadLetter) -> bool {
        self.reason.as_ref().is_none_or(|r| *r == letter.reason)
            && self.class.as_ref().is_none_or(|c| *c == letter.class)
            && self.tenant.as_ref().is_none_or(|t| *t == letter.tenant)
    }
}

/// A page of dead letters, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeadPage {
    /// The letters.
    pub letters: Vec<DeadLetter>,
    /// Position from which the next page begins; `None` if this is the last page.
    pub next: Option<LetterId>,
}

/// LetterOrder in which the stream is read.
#[derive(Debug, Clone, Copy)]
pub(crate) enum LetterOrder {
    NewestFirst,
    OldestFirst,
}

impl Queue {
    /// Returns up to `most` dead letters that match `filter` and are older than `before`, newest
    /// first.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached.
    pub async fn dead_letters(
        &self,
        filter: &DeadFilter,
        before: Option<&LetterId>,
        most: usize,
    ) -> Result<DeadPage, QueueError> {
        let mut page = DeadPage::default();
        let mut from = before.cloned();
        loop {
            let read = self
                .read_letters(LetterOrder::NewestFirst, from.as_ref(), None)
                .await?;
            let Some(last) = read.last else {
                return Ok(page);
            };
            for letter in read.letters.into_iter().filter(|one| filter.matches(one)) {
                if page.letters.len() == most {
                    page.next = page.letters.last().map(|last| last.letter.clone());
                    return Ok(page);
                }
                page.letters.push(letter);
            }
            from = Some(last);
        }
    }

    /// Returns the newest dead letter of a job.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached.
    pub async fn dead_letter(&self, id: &JobId) -> Result<Option<DeadLetter>, QueueError> {
        if let Some(letter) = self.named_letter(id).await? {
            let mut command = redis::cmd("XRANGE");
            command.arg(self.keys.dead()).arg(&letter.0).arg(&letter.0);
            let answer = self.connection.run_repeatable("XRANGE", &command).await?;
            let entries = stream_entry::entries(RespValue::new("XRANGE", answer))?;
            return Ok(self.with_records(entries).await?.pop());
        }
        // The record has expired or names no letter, so the stream must be searched.
        let mut from = None;
        loop {
            let read = self
                .read_letters(LetterOrder::NewestFirst, from.as_ref(), None)
                .await?;
            if let Some(found) = read.letters.into_iter().find(|letter| letter.id == *id) {
                return Ok(Some(found));
            }
            match read.last {
                Some(last) => from = Some(last),
                None => return Ok(None),
            }
        }
    }

    /// Returns a job's payload, as it was submitted. `None` if the job is unknown, has ended, or
    /// was rejected at the intake.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached.
    pub async fn payload(&self, id: &JobId) -> Result<Option<Vec<u8>>, QueueError> {
        let mut command = redis::cmd("HGET");
        command.arg(self.keys.job(id)).arg("payload");
        let answer = RespValue::new(
            "HGET",
            self.connection.run_repeatable("HGET", &command).await?,
        );
        if answer.is_nil() {
            return Ok(None);
        }
        answer.bytes().map(Some)
    }

    /// Returns the newest letter. A sweep over the present letters ends there.
    pub(crate) async fn newest_letter(&self) -> Result<Option<LetterId>, QueueError> {
        let mut command = redis::cmd("XREVRANGE");
        command.arg(self.keys.dead()).arg(&["+", "-", "COUNT", "1"]);
        let answer = self
            .connection
            .run_repeatable("XREVRANGE", &command)
            .await?;
        let newest = stream_entry::entries(RespValue::new("XREVRANGE", answer))?.pop();
        Ok(newest.map(|entry| LetterId(entry.id)))
    }

    /// Returns the next letters after `from` in this order, none newer than `to`.
    pub(crate) async fn read_letters(
        &self,
        order: LetterOrder,
        from: Option<&LetterId>,
        to: Option<&LetterId>,
    ) -> Result<ReadLetters, QueueError> {
        let (verb, begin, end) = match order {
            LetterOrder::NewestFirst => ("XREVRANGE", "+", "-"),
            LetterOrder::OldestFirst => ("XRANGE", "-", "+"),
        };
        let mut command = redis::cmd(verb);
        command.arg(self.keys.dead());
        match from {
            Some(LetterId(after)) => command.arg(format!("({after}")),
            None => command.arg(begin),
        };
        command.arg(to.map_or(end, LetterId::as_str));
        command.arg("COUNT").arg(SCRIPT_BATCH);
        let answer = self.connection.run_repeatable(verb, &command).await?;
        let entries = stream_entry::entries(RespValue::new(verb, answer))?;
        let last = entries.last().map(|entry| LetterId(entry.id.clone()));
        Ok(ReadLetters {
            letters: self.with_records(entries).await?,
            last,
        })
    }

    async fn named_letter(&self, id: &JobId) -> Result<Option<LetterId>, QueueError> {
        let mut command = redis::cmd("HGET");
        command.arg(self.keys.job(id)).arg("letter");
        let answer = self.connection.run_repeatable("HGET", &command).await?;
        Ok(RespValue::new("HGET", answer).maybe_text()?.map(LetterId))
    }

    /// Decodes the entries that are valid letters, and completes each with the present state of its
    /// job's record.
    async fn with_records(&self, entries: Vec<StreamEntry>) -> Result<Vec<DeadLetter>, QueueError> {
        let mut letters: Vec<DeadLetter> = entries
            .iter()
            .filter_map(|entry| match read(entry) {
                Ok(letter) => Some(letter),
                Err(error) => {
                    tracing::warn!(entry = entry.id, %error, "dead letter cannot be decoded");
                    None
                }
            })
            .collect();
        if letters.is_empty() {
            return Ok(letters);
        }
        let mut pipeline = redis::pipe();
        for letter in &letters {
            let job = self.keys.job(&letter.id);
            pipeline.cmd("HGET").arg(&job).arg("letter");
            pipeline.cmd("HEXISTS").arg(&job).arg("payload");
        }
        let mut answers = self
            .connection
            .run_repeatable_pipeline("HGET", &pipeline)
            .await?
            .into_iter();
        for letter in &mut letters {
            let (Some(named), Some(payload)) = (answers.next(), answers.next()) else {
                break;
            };
            let named = RespValue::new("HGET", named).maybe_text()?;
            let has_payload = RespValue::new("HEXISTS", payload).number::<u8>()? == 1;
            letter.requeueable = has_payload && named.as_deref() == Some(letter.letter.as_str());
        }
        Ok(letters)
    }
}

/// Result of one read of the stream.
#[derive(Debug)]
pub(crate) struct ReadLetters {
    /// The letters.
    pub(crate) letters: Vec<DeadLetter>,
    /// The last entry read, even if it is not a valid letter; `None` at the end of the stream.
    pub(crate) last: Option<LetterId>,
}

fn read(entry: &StreamEntry) -> Result<DeadLetter, IdError> {
    let text = |name| entry.text(name).unwrap_or_default();
    Ok(DeadLetter {
        letter: LetterId(entry.id.clone()),
        id: text("id").parse()?,
        reason: text("reason").to_owned(),
        error: text("error").to_owned(),
        class: text("class").parse::<Class>()?.unsized_class(),
        tenant: text("tenant").parse()?,
        requeueable: false,
    })
}
