//! Decodes stream entries, and encodes the time to wait for them.

use std::time::Duration;

use crate::QueueError;
use crate::resp::RespValue;

/// One entry of a stream.
#[derive(Debug)]
pub(crate) struct StreamEntry {
    /// Its stream id.
    pub(crate) id: String,
    /// Its fields, in order.
    pub(crate) fields: Fields,
}

impl StreamEntry {
    /// Returns a field's value.
    pub(crate) fn field(&self, name: &str) -> Option<&[u8]> {
        self.fields
            .iter()
            .find(|(key, _)| key == name.as_bytes())
            .map(|(_, value)| value.as_slice())
    }

    /// Returns a field's value as text, if it is UTF-8.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.field(name)?).ok()
    }
}

/// Decodes the answer to `XREAD` or `XREADGROUP`: entries by stream, or nil if there are none.
pub(crate) fn by_stream(reply: RespValue) -> Result<Vec<(String, Vec<StreamEntry>)>, QueueError> {
    reply
        .parts()?
        .map(|stream| {
            let mut parts = stream.parts()?;
            let name = parts.part()?.text()?;
            Ok((name, entries(parts.part()?)?))
        })
        .collect()
}

/// Decodes a list of entries. Skips a deleted entry, which has an id and no fields.
pub(crate) fn entries(reply: RespValue) -> Result<Vec<StreamEntry>, QueueError> {
    let mut entries = Vec::new();
    for entry in reply.parts()? {
        if entry.is_nil() {
            continue;
        }
        let mut parts = entry.parts()?;
        let id = parts.part()?.text()?;
        let fields = parts.part()?;
        if fields.is_nil() {
            continue;
        }
        entries.push(StreamEntry {
            id,
            fields: pairs(fields)?,
        });
    }
    Ok(entries)
}

/// An entry's fields, in order.
type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// Decodes an entry's fields, which are names and values in turn.
pub(crate) fn pairs(reply: RespValue) -> Result<Fields, QueueError> {
    let mut values = reply.parts()?;
    let mut pairs = Vec::new();
    while let Some(name) = values.next() {
        pairs.push((name.bytes()?, values.part()?.bytes()?));
    }
    Ok(pairs)
}

/// Returns a wait in milliseconds, for `BLOCK`. `None` for a wait of zero, because Redis treats
/// zero as no timeout.
pub(crate) fn block(wait: Duration) -> Option<u64> {
    if wait.is_zero() {
        return None;
    }
    Some(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1))
}
