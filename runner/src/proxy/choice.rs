//! One of the answers that a stream of OpenAI's shape carries, put together from its pieces.
//!
//! It knows no field but those that tell where a piece belongs, so that what servers add (tool calls, reasoning, refusals,
//! logarithms of probabilities) comes out as it would have without a stream.

use serde_json::{Map, Value, json};

/// Fields whose strings are names: one that comes again is the same one. Other strings of a piece go on where the last ended.
const NAMES: [&str; 4] = ["id", "name", "role", "type"];

/// The pieces so far.
#[derive(Debug, Default)]
pub(super) struct Choice {
    /// The pieces of a message, put together.
    message: Option<Value>,
    /// What stands beside the message, with the text of a completion.
    rest: Map<String, Value>,
}

impl Choice {
    /// Takes what an event says of it.
    pub(super) fn take(&mut self, mut fields: Map<String, Value>) {
        fields.remove("index");
        if let Some(delta) = fields.remove("delta") {
            join(self.message.get_or_insert(Value::Null), delta, true);
        }
        for (name, value) in fields {
            let is_text = name == "text";
            join(self.rest.entry(name).or_insert(Value::Null), value, is_text);
        }
    }

    /// Whether the server said why it ended.
    pub(super) fn is_whole(&self) -> bool {
        let reason = self.rest.get("finish_reason");
        reason.is_some_and(|reason| !reason.is_null())
    }

    /// It as a call without a stream has it.
    pub(super) fn whole((index, choice): (u64, Self)) -> Value {
        let Self { message, mut rest } = choice;
        rest.insert("index".to_owned(), index.into());
        rest.entry("finish_reason").or_insert(Value::Null);
        match message {
            Some(message) => {
                let mut whole = json!({"role": "assistant", "content": null});
                join(&mut whole, message, false);
                unnumber(&mut whole);
                rest.insert("message".to_owned(), whole);
            }
            None => {
                rest.entry("text").or_insert("".into());
            }
        }
        Value::Object(rest)
    }
}

/// Puts a piece to what there is: fields to fields, lists behind lists, numbered parts to the parts of their numbers. With
/// `texts` a string goes on where the last one ended; anything else takes the place of what was there, but null.
pub(super) fn join(whole: &mut Value, piece: Value, texts: bool) {
    match (whole, piece) {
        (_, Value::Null) => {}
        (Value::Object(whole), Value::Object(piece)) => {
            for (name, value) in piece {
                let texts = texts && !NAMES.contains(&name.as_str());
                join(whole.entry(name).or_insert(Value::Null), value, texts);
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
                    Some(same) => join(same, part, texts),
                    None => whole.push(part),
                }
            }
        }
        (Value::String(whole), Value::String(piece)) if texts => whole.push_str(&piece),
        // Some servers have a name in the first piece alone, and nothing for it in the next.
        (Value::String(_), Value::String(piece)) if piece.is_empty() => {}
        (whole, piece) => *whole = piece,
    }
}

/// Takes the numbers off the parts of a message's lists: they tell the pieces of a stream apart, and an answer has none.
fn unnumber(message: &mut Value) {
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
