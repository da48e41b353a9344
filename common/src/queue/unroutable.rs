//! Work that nobody will do: classes with ready jobs that no live worker serves, for want of a tag or of room.

use super::record::known;
use super::reply::Reply;
use super::script::{MOST, UNROUTABLE};
use super::{Queue, QueueError, Snapshot};
use crate::class::Class;
use crate::units::UnixMillis;

/// Why no live worker serves a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lack {
    /// None offers all its tags.
    Tags,
    /// Some offer its tags, and its jobs ask for more memory or CPU than any of those has.
    Room,
}

impl Lack {
    /// Every one.
    pub const ALL: [Self; 2] = [Self::Tags, Self::Room];

    /// The word for it in events and in `--json`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tags => "tags",
            Self::Room => "room",
        }
    }
}

/// A class with ready jobs that no live worker serves. A worker that is draining serves none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unroutable {
    /// The class.
    pub class: Class,
    /// Its ready jobs; of a queue with more than a thousand tenants, those of some of them.
    pub jobs: u64,
    /// Why.
    pub lack: Lack,
    /// Since when, by Redis' clock; none when no worker has noticed yet.
    pub since: Option<UnixMillis>,
}

impl Queue {
    /// The classes of `snapshot` that are unroutable. Changes nothing.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn unroutable(&self, snapshot: &Snapshot) -> Result<Vec<Unroutable>, QueueError> {
        let classes: Vec<&Class> = snapshot
            .classes
            .iter()
            .filter(|depth| depth.ready > 0)
            .map(|depth| &depth.class)
            .collect();
        self.look("look", &classes).await
    }

    /// Those of `classes` that are unroutable. Changes nothing.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached.
    pub async fn unroutable_among(
        &self,
        classes: &[&Class],
    ) -> Result<Vec<Unroutable>, QueueError> {
        if classes.is_empty() {
            return Ok(Vec::new());
        }
        self.look("look", classes).await
    }

    /// Looks at `classes`, and at those that were unroutable when anybody last did. For each that has become so there
    /// is an event, `unroutable`, and for each that no longer is another, `routable`: one, whoever looks.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn mark_unroutable(&self, classes: &[&Class]) -> Result<Vec<Unroutable>, QueueError> {
        self.look("mark", classes).await
    }

    async fn look(&self, mode: &str, classes: &[&Class]) -> Result<Vec<Unroutable>, QueueError> {
        let mut found: Vec<Unroutable> = Vec::new();
        let mut chunks: Vec<&[&Class]> = classes.chunks(MOST).collect();
        if chunks.is_empty() {
            chunks.push(&[]);
        }
        for chunk in chunks {
            let mut call = UNROUTABLE.call(self.keys.prefix()).arg(mode);
            for class in chunk {
                call.push(class.as_str());
            }
            let mut parts = Reply::new("unroutable", call.run(&self.link).await?).parts()?;
            while let Some(class) = parts.next() {
                let class = class.name()?;
                // Those marked before are answered with every chunk.
                found.retain(|before| before.class != class);
                found.push(Unroutable {
                    class,
                    jobs: parts.part()?.number()?,
                    lack: known(&parts.part()?.text()?, Lack::ALL, Lack::as_str)?,
                    since: parts.part()?.maybe_number()?.map(UnixMillis),
                });
            }
        }
        found.sort_by(|a, b| a.class.cmp(&b.class));
        Ok(found)
    }
}
