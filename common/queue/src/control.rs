//! The control stream: events that every worker must receive immediately.

use std::time::Duration;

use crate::blocking::BlockingConnection;
use crate::resp::RespValue;
use crate::script::SCRIPT_BATCH;
use crate::{Queue, QueueError, Unblocker, stream_entry};
use sandhog_core::class::Class;
use sandhog_core::id::JobId;

/// Event that every worker must receive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlEvent {
    /// A cancel of this running job was requested.
    Cancel(JobId),
    /// This class came into use, or was forgotten.
    Class(Class),
}

impl Queue {
    /// Opens a reader of the events from now on, with a connection of its own.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached.
    pub async fn control_reader(&self) -> Result<ControlReader, QueueError> {
        let mut command = redis::cmd("XREVRANGE");
        command
            .arg(self.keys.control())
            .arg(&["+", "-", "COUNT", "1"]);
        let answer = self
            .connection
            .run_repeatable("XREVRANGE", &command)
            .await?;
        let last = stream_entry::entries(RespValue::new("XREVRANGE", answer))?.pop();
        Ok(ControlReader {
            blocking: BlockingConnection::open(&self.connection).await?,
            control: self.keys.control(),
            after: last.map_or_else(|| "0".to_owned(), |entry| entry.id),
        })
    }
}

/// Reads the control stream. A missed event is harmless: the heartbeat reports cancels too.
#[derive(Debug)]
pub struct ControlReader {
    blocking: BlockingConnection,
    control: String,
    after: String,
}

impl ControlReader {
    /// Returns the events since the last call. Waits at most `block` for the first event; empty
    /// when none came.
    ///
    /// # Cancel safety
    /// Safe: reading removes nothing, and the events of a dropped call are read again.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached.
    pub async fn next(&mut self, block: Duration) -> Result<Vec<ControlEvent>, QueueError> {
        let _call = self.blocking.enter();
        if self.blocking.is_unblocked() {
            return Ok(Vec::new());
        }
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(SCRIPT_BATCH);
        if let Some(block) = stream_entry::block(block) {
            command.arg("BLOCK").arg(block);
        }
        command.arg("STREAMS").arg(&self.control).arg(&self.after);
        let answer = self.blocking.wait("XREAD", &command, block).await?;
        let entries: Vec<_> = stream_entry::by_stream(RespValue::new("XREAD", answer))?
            .into_iter()
            .flat_map(|(_, entries)| entries)
            .collect();
        if entries.is_empty() {
            // The wait has ended, so a pending request to end it is satisfied.
            self.blocking.is_unblocked();
        }
        let mut events = Vec::new();
        for entry in entries {
            // An op of a newer version is ignored.
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

    /// Returns a handle that ends a wait from another task.
    #[must_use]
    pub fn unblocker(&self) -> Unblocker {
        self.blocking.unblocker()
    }
}
