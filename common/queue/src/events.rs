//! The events stream: recent changes of state, for dashboards and exporters.
//!
//! Each field of an entry is one event. The field's name is the event's name. Its value is a list
//! of names and values, separated by spaces: the job's id, class and tenant, and then further
//! facts. An event that cannot be decoded was written by another version and is skipped.

use crate::resp::RespValue;
use crate::{Queue, QueueError, stream_entry};
use sandhog_core::class::Class;
use sandhog_core::id::clip;
use sandhog_core::units::UnixMillis;

/// Something that happened to a job or a class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Time of the event, by the clock of Redis.
    pub at: UnixMillis,
    /// Name of the event: `admitted`, `started`, `finished`, `dead`, `retried`, `lost`,
    /// `unroutable`, …
    pub name: String,
    /// The job; `-` for an event of a class.
    pub id: String,
    /// The class.
    pub class: Class,
    /// The tenant that owns the job; `-` for an event of a class.
    pub tenant: String,
    /// Further facts, as names and values.
    pub facts: Vec<(String, String)>,
}

impl Event {
    /// Returns the value of the fact of this name.
    #[must_use]
    pub fn fact(&self, name: &str) -> Option<&str> {
        let found = self.facts.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

impl Queue {
    /// Returns the events of the last `most` entries, oldest first. Each entry holds up to eight
    /// events.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached.
    pub async fn recent_events(&self, most: usize) -> Result<Vec<Event>, QueueError> {
        let mut command = redis::cmd("XREVRANGE");
        command.arg(self.keys.events()).arg("+").arg("-");
        command.arg("COUNT").arg(most);
        let answer = self
            .connection
            .run_repeatable("XREVRANGE", &command)
            .await?;
        let mut entries = stream_entry::entries(RespValue::new("XREVRANGE", answer))?;
        entries.reverse();
        let mut events = Vec::new();
        for entry in &entries {
            let at = entry.id.split('-').next().and_then(|ms| ms.parse().ok());
            let Some(at) = at.map(UnixMillis) else {
                continue;
            };
            for (name, text) in &entry.fields {
                events.extend(read(at, name, text));
            }
        }
        Ok(events)
    }
}

fn read(at: UnixMillis, name: &[u8], text: &[u8]) -> Option<Event> {
    let mut words = std::str::from_utf8(text).ok()?.split(' ');
    let mut facts = Vec::new();
    while let (Some(name), Some(value)) = (words.next(), words.next()) {
        facts.push((name.to_owned(), value.to_owned()));
    }
    let mut take = |name: &str| {
        let place = facts.iter().position(|(known, _)| known == name)?;
        Some(facts.remove(place).1)
    };
    Some(Event {
        at,
        name: clip(std::str::from_utf8(name).ok()?, 40),
        id: take("id")?,
        class: take("class")?.parse().ok()?,
        tenant: take("tenant")?,
        facts,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_and_others_left_out() {
        let at = UnixMillis(7);
        let text = b"id a class cpu tenant acme outcome failed worker w1 odd";
        let event = read(at, b"finished", text).unwrap();
        assert_eq!((event.id.as_str(), event.tenant.as_str()), ("a", "acme"));
        assert_eq!(event.fact("outcome"), Some("failed"));
        assert_eq!(event.fact("worker"), Some("w1"));
        assert_eq!(event.fact("odd"), None);
        for other in [&b"id a"[..], b"", b"id a class CPU tenant acme", b"\xff"] {
            assert_eq!(read(at, b"finished", other), None);
        }
    }
}
