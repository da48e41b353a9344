//! Dead letters: looking through what was given up.
//!
//! The letter is a stream entry and stays when the job's record has passed its retention; only a job whose record
//! still holds its payload can be queued again. Nothing here writes: see [`Queue::requeue`] and
//! [`Queue::drop_dead`].

use super::reply::Reply;
use super::script::MOST;
use super::streams::{self, StreamEntry};
use super::{Queue, QueueError};
use crate::class::Class;
use crate::id::{IdError, JobId, Tenant, clip};
use crate::units::UnixMillis;

/// The stream id of a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LetterId(String);

impl LetterId {
    /// The id as Redis wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// When the letter was written, by Redis' clock.
    #[must_use]
    pub fn written_at(&self) -> UnixMillis {
        let ms = self.0.split('-').next().unwrap_or_default();
        UnixMillis(ms.parse().unwrap_or_default())
    }
}

impl std::str::FromStr for LetterId {
    type Err = String;

    /// Reads a stream id, as a page of letters names the next.
    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('-');
        let is_number = |part: &str| part.parse::<u64>().is_ok();
        match parts {
            Some((ms, seq)) if is_number(ms) && is_number(seq) => Ok(Self(text.to_owned())),
            Some(_) | None => Err(format!(
                "letter {:?} is not valid (want two numbers parted by -)",
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

/// One job that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its place among the letters; a greater one is newer.
    pub letter: LetterId,
    /// The job.
    pub id: JobId,
    /// Why, as an error code.
    pub reason: String,
    /// Why, for a person.
    pub error: String,
    /// Which workers may run it.
    pub class: Class,
    /// Whose it is.
    pub tenant: Tenant,
    /// Whether it can be queued again: its payload is still there.
    pub requeueable: bool,
}

/// Which dead letters are meant; what is none fits all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeadFilter {
    /// Those with this error code.
    pub reason: Option<String>,
    /// Those of this class.
    pub class: Option<Class>,
    /// Those of this tenant.
    pub tenant: Option<Tenant>,
}

impl DeadFilter {
    /// Whether it means this letter.
    #[must_use]
    pub fn fits(&self, letter: &DeadLetter) -> bool {
        self.reason.as_ref().is_none_or(|r| *r == letter.reason)
            && self.class.as_ref().is_none_or(|c| *c == letter.class)
            && self.tenant.as_ref().is_none_or(|t| *t == letter.tenant)
    }
}

/// Some dead letters, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeadPage {
    /// The letters.
    pub letters: Vec<DeadLetter>,
    /// Where the next page begins; none when this was the last.
    pub next: Option<LetterId>,
}

/// In which order the stream is read.
#[derive(Debug, Clone, Copy)]
pub(super) enum Order {
    NewestFirst,
    OldestFirst,
}

impl Queue {
    /// Up to `most` dead letters that fit, newest first, those older than `before`.
    ///
    /// # Errors
    /// When Redis cannot be reached.
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
                .read_letters(Order::NewestFirst, from.as_ref(), None)
                .await?;
            let Some(last) = read.last else {
                return Ok(page);
            };
            for letter in read.letters.into_iter().filter(|one| filter.fits(one)) {
                if page.letters.len() == most {
                    page.next = page.letters.last().map(|last| last.letter.clone());
                    return Ok(page);
                }
                page.letters.push(letter);
            }
            from = Some(last);
        }
    }

    /// The newest dead letter of a job.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn dead_letter(&self, id: &JobId) -> Result<Option<DeadLetter>, QueueError> {
        if let Some(letter) = self.named_letter(id).await? {
            let mut command = redis::cmd("XRANGE");
            command.arg(self.keys.dead()).arg(&letter.0).arg(&letter.0);
            let answer = self.link.repeatable("XRANGE", &command).await?;
            let entries = streams::entries(Reply::new("XRANGE", answer))?;
            return Ok(self.with_records(entries).await?.pop());
        }
        // The record has passed its retention: the letter must be looked for.
        let mut from = None;
        loop {
            let read = self
                .read_letters(Order::NewestFirst, from.as_ref(), None)
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

    /// What a job runs, as it was submitted; none when it is not known, is over, or never could be run.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn payload(&self, id: &JobId) -> Result<Option<Vec<u8>>, QueueError> {
        let mut command = redis::cmd("HGET");
        command.arg(self.keys.job(id)).arg("payload");
        let answer = Reply::new("HGET", self.link.repeatable("HGET", &command).await?);
        if answer.is_nil() {
            return Ok(None);
        }
        answer.bytes().map(Some)
    }

    /// The newest letter of all: where a sweep over those of now ends.
    pub(super) async fn newest_letter(&self) -> Result<Option<LetterId>, QueueError> {
        let mut command = redis::cmd("XREVRANGE");
        command.arg(self.keys.dead()).arg(&["+", "-", "COUNT", "1"]);
        let answer = self.link.repeatable("XREVRANGE", &command).await?;
        let newest = streams::entries(Reply::new("XREVRANGE", answer))?.pop();
        Ok(newest.map(|entry| LetterId(entry.id)))
    }

    /// The next letters after `from`, in this order, none newer than `to`.
    pub(super) async fn read_letters(
        &self,
        order: Order,
        from: Option<&LetterId>,
        to: Option<&LetterId>,
    ) -> Result<ReadLetters, QueueError> {
        let (verb, begin, end) = match order {
            Order::NewestFirst => ("XREVRANGE", "+", "-"),
            Order::OldestFirst => ("XRANGE", "-", "+"),
        };
        let mut command = redis::cmd(verb);
        command.arg(self.keys.dead());
        match from {
            Some(LetterId(after)) => command.arg(format!("({after}")),
            None => command.arg(begin),
        };
        command.arg(to.map_or(end, LetterId::as_str));
        command.arg("COUNT").arg(MOST);
        let answer = self.link.repeatable(verb, &command).await?;
        let entries = streams::entries(Reply::new(verb, answer))?;
        let last = entries.last().map(|entry| LetterId(entry.id.clone()));
        Ok(ReadLetters {
            letters: self.with_records(entries).await?,
            last,
        })
    }

    async fn named_letter(&self, id: &JobId) -> Result<Option<LetterId>, QueueError> {
        let mut command = redis::cmd("HGET");
        command.arg(self.keys.job(id)).arg("letter");
        let answer = self.link.repeatable("HGET", &command).await?;
        Ok(Reply::new("HGET", answer).maybe_text()?.map(LetterId))
    }

    /// The letters that read, each with what its job's record says now.
    async fn with_records(&self, entries: Vec<StreamEntry>) -> Result<Vec<DeadLetter>, QueueError> {
        let mut letters: Vec<DeadLetter> = entries
            .iter()
            .filter_map(|entry| match read(entry) {
                Ok(letter) => Some(letter),
                Err(error) => {
                    tracing::warn!(entry = entry.id, %error, "dead letter does not read");
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
            .link
            .repeatable_pipeline("HGET", &pipeline)
            .await?
            .into_iter();
        for letter in &mut letters {
            let (Some(named), Some(payload)) = (answers.next(), answers.next()) else {
                break;
            };
            let named = Reply::new("HGET", named).maybe_text()?;
            let has_payload = Reply::new("HEXISTS", payload).number::<u8>()? == 1;
            letter.requeueable = has_payload && named.as_deref() == Some(letter.letter.as_str());
        }
        Ok(letters)
    }
}

/// One read of the stream.
#[derive(Debug)]
pub(super) struct ReadLetters {
    /// The letters.
    pub(super) letters: Vec<DeadLetter>,
    /// The last entry read, whether it made sense or not; none at the end.
    pub(super) last: Option<LetterId>,
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
