//! One answer (choice) of a stream in OpenAI's format, assembled from its pieces.
//!
//! It interprets only the fields that tell where a piece belongs. Therefore fields that servers add
//! (tool calls, reasoning, refusals, log probabilities) end up in the answer as they would without
//! a stream.

use serde_json::{Map, Value, json};

/// Fields whose strings are names. A name that comes again replaces the earlier one; any other
/// string of a piece is appended to the earlier one.
const NAMES: [&str; 4] = ["id", "name", "role", "type"];

/// The pieces so far.
#[derive(Debug, Default)]
pub(super) struct Choice {
    /// The message, assembled from its pieces.
    message: Option<Value>,
    /// The fields beside the message, among them the text of a completion.
    rest: Map<String, Value>,
}

impl Choice {
    /// Adds the fields of this choice from one event.
    pub(super) fn take(&mut self, mut fields: Map<String, Value>) {
        fields.remove("index");
        if let Some(delta) = fields.remove("delta") {
            merge(self.message.get_or_insert(Value::Null), delta, true);
        }
        for (name, value) in fields {
            let is_text = name == "text";
            merge(self.rest.entry(name).or_insert(Value::Null), value, is_text);
        }
    }

    /// Returns whether the choice is complete: the server has sent a reason for its end.
    pub(super) fn has_all_walls(&self) -> bool {
        let reason = self.rest.get("finish_reason");
        reason.is_some_and(|reason| !reason.is_null())
    }

    /// Returns the choice in the form that a call without a stream returns.
    pub(super) fn into_value((index, choice): (u64, Self)) -> Value {
        let Self { message, mut rest } = choice;
        rest.insert("index".to_owned(), index.into());
        rest.entry("finish_reason").or_insert(Value::Null);
        match message {
            Some(message) => {
                let mut whole = json!({"role": "assistant", "content": null});
                merge(&mut whole, message, false);
                remove_indices(&mut whole);
                rest.insert("message".to_owned(), whole);
            }
            None => {
                rest.entry("text").or_insert("".into());
            }
        }
        Value::Object(rest)
    }
}

/// Merges a piece into the value so far. Objects are merged field by field, lists are appended, and
/// a list element with an `index` is merged with the element of the same index. With `texts`, a
/// string is appended to the earlier one. Any other value replaces the earlier one, except that
/// null is ignored.
pub(super) fn merge(whole: &mut Value, piece: Value, texts: bool) {
    match (whole, piece) {
        (_, Value::Null) => {}
        (Value::Object(whole), Value::Object(piece)) => {
            for (name, value) in piece {
                let texts = texts && !NAMES.contains(&name.as_str());
                merge(whole.entry(name).or_insert(Value::Null), value, texts);
            }
        }
        (Value::Array(whole), Value::Array(piece)) => {
            for part in piece {
                let number = part.get("index").filter(|number| number.is_u64());
                let same = number.and_then(|number| {
                    let mut parts = whole.iter_mut();
                    parts.find(|part| part.get("index") == Some(number))
                });
                match same {
                    Some(same) => merge(same, part, texts),
                    None => whole.push(part),
                }
            }
        }
        (Value::String(whole), Value::String(piece)) if texts => whole.push_str(&piece),
        // Some servers send a name in the first piece only, and an empty string in later ones.
        (Value::String(_), Value::String(piece)) if piece.is_empty() => {}
        (whole, piece) => *whole = piece,
    }
}

/// Removes `index` from the elements of a message's lists, after sorting by it. It only serves to
/// match the pieces of a stream; an answer without a stream has none.
fn remove_indices(message: &mut Value) {
    let Value::Object(fields) = message else {
        return;
    };
    for parts in fields.values_mut().filter_map(Value::as_array_mut) {
        parts.sort_by_key(|part| part.get("index").and_then(Value::as_u64));
        for part in parts.iter_mut().filter_map(Value::as_object_mut) {
            part.remove("index");
        }
    }
}
