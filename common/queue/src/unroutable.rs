//! Unroutable work: classes with ready jobs that no live worker serves, because each lacks a tag or
//! capacity.

use crate::record::known;
use crate::resp::RespValue;
use crate::script::{SCRIPT_BATCH, UNROUTABLE};
use crate::{Queue, QueueError, Snapshot};
use sandhog_core::class::Class;
use sandhog_core::units::UnixMillis;

/// Reason why no live worker serves a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lack {
    /// No live worker offers all tags of the class.
    Tags,
    /// Some live workers offer its tags, but its jobs need more memory or CPU than any of these
    /// workers has.
    Room,
}

impl Lack {
    /// All reasons.
    pub const ALL: [Self; 2] = [Self::Tags, Self::Room];

    /// Returns the word for the reason in events and in `--json`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tags => "tags",
            Self::Room => "room",
        }
    }
}

/// A class with ready jobs that no live worker serves. A draining worker serves no class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unroutable {
    /// The class.
    pub class: Class,
    /// Number of its ready jobs. In a queue with more than a thousand tenants, only those of some
    /// tenants are counted.
    pub jobs: u64,
    /// Reason why it is not served.
    pub lack: Lack,
    /// Time at which a worker first noticed it, by the clock of Redis; `None` if no worker has
    /// noticed it yet.
    pub since: Option<UnixMillis>,
}

impl Queue {
    /// Returns the classes of `snapshot` that are unroutable. Changes nothing.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached.
    pub async fn unroutable(&self, snapshot: &Snapshot) -> Result<Vec<Unroutable>, QueueError> {
        let classes: Vec<&Class> = snapshot
            .classes
            .iter()
            .filter(|depth| depth.ready > 0)
            .map(|depth| &depth.class)
            .collect();
        self.check_classes("look", &classes).await
    }

    /// Returns the classes among `classes` that are unroutable. Changes nothing.
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
        self.check_classes("look", classes).await
    }

    /// Checks `classes`, and the classes that were unroutable at the last check. Writes one event
    /// `unroutable` for each class that has become so, and one event `routable` for each that no
    /// longer is, however many workers check.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached.
    pub async fn mark_unroutable(&self, classes: &[&Class]) -> Result<Vec<Unroutable>, QueueError> {
        self.check_classes("mark", classes).await
    }

    async fn check_classes(
        &self,
        mode: &str,
        classes: &[&Class],
    ) -> Result<Vec<Unroutable>, QueueError> {
        let mut found: Vec<Unroutable> = Vec::new();
        let mut chunks: Vec<&[&Class]> = classes.chunks(SCRIPT_BATCH).collect();
        if chunks.is_empty() {
            chunks.push(&[]);
        }
        for chunk in chunks {
            let mut call = UNROUTABLE.call(self.keys.prefix()).arg(mode);
            for class in chunk {
                call.push(class.as_str());
            }
            let mut parts =
                RespValue::new("unroutable", call.run(&self.connection).await?).parts()?;
            while let Some(class) = parts.next() {
                let class = class.name()?;
                // Classes that were marked before are in the answer for every chunk.
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
