//! The control stream: what every worker must hear at once.

use std::time::Duration;

use super::blocking::Blocking;
use super::reply::Reply;
use super::script::MOST;
use super::{Queue, QueueError, Unblocker, streams};
use crate::class::Class;
use crate::id::JobId;

/// Something every worker must hear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlEvent {
    /// Somebody wants this running job cancelled.
    Cancel(JobId),
    /// This class came into use, or is forgotten.
    Class(Class),
}

impl Queue {
    /// A reader of what is said from now on, with a connection of its own.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn control_reader(&self) -> Result<ControlReader, QueueError> {
        let mut command = redis::cmd("XREVRANGE");
        command
            .arg(self.keys.control())
            .arg(&["+", "-", "COUNT", "1"]);
        let answer = self.link.repeatable("XREVRANGE", &command).await?;
        let last = streams::entries(Reply::new("XREVRANGE", answer))?.pop();
        Ok(ControlReader {
            blocking: Blocking::open(&self.link).await?,
            control: self.keys.control(),
            after: last.map_or_else(|| "0".to_owned(), |entry| entry.id),
        })
    }
}

/// Listens to the control stream. Missing an event is harmless: the heartbeat answers it too.
#[derive(Debug)]
pub struct ControlReader {
    blocking: Blocking,
    control: String,
    after: String,
}

impl ControlReader {
    /// What was said since the last call, waiting at most `block` for the first event; empty when nothing was.
    ///
    /// # Cancel safety
    /// Safe: reading removes nothing, and a dropped call's events are read again.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn next(&mut self, block: Duration) -> Result<Vec<ControlEvent>, QueueError> {
        let _reading = self.blocking.enter();
        if self.blocking.is_unblocked() {
            return Ok(Vec::new());
        }
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(MOST);
        if let Some(block) = streams::block(block) {
            command.arg("BLOCK").arg(block);
        }
        command.arg("STREAMS").arg(&self.control).arg(&self.after);
        let answer = self.blocking.wait("XREAD", &command, block).await?;
        let entries: Vec<_> = streams::by_stream(Reply::new("XREAD", answer))?
            .into_iter()
            .flat_map(|(_, entries)| entries)
            .collect();
        if entries.is_empty() {
            // The wait has ended, so a request to end it has been met.
            self.blocking.is_unblocked();
        }
        let mut events = Vec::new();
        for entry in entries {
            // An op of a newer version is not for this one.
            let name = |field| entry.text(field);
            match name("op") {
                Some("cancel") => {
                    let id = name("id").and_then(|id| id.parse().ok());
                    events.extend(id.map(ControlEvent::Cancel));
                }
                Some("class") => {
                    let class = name("class").and_then(|class| class.parse().ok());
                    events.extend(class.map(ControlEvent::Class));
                }
                Some(_) | None => {}
            }
            self.after = entry.id;
        }
        Ok(events)
    }

    /// A handle that ends a wait from another task.
    #[must_use]
    pub fn unblocker(&self) -> Unblocker {
        self.blocking.unblocker()
    }
}
