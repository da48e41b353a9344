//! Server-sent events, and what they amount to in the end.
//!
//! Events in the shape of OpenAI's chat and completion streams carry text: that is what is passed on, and the whole of
//! such a stream is the answer that a call without `stream` would have had. So is llama.cpp's own `content`. Events of
//! any other shape are passed on as they are, one a line, and their list is the answer.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// The events of one answer so far.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    /// The lines of data of the event that has not ended.
    data: String,
    /// What the events say beside text; of each field the last that is not null.
    envelope: Map<String, Value>,
    choices: BTreeMap<u64, Choice>,
    /// Text that belongs to no choice.
    content: Option<String>,
    /// Events of other shapes.
    others: Vec<Value>,
}

#[derive(Debug, Default)]
struct Choice {
    text: String,
    is_message: bool,
    finish_reason: Value,
}

impl Assembly {
    /// Takes one line; what is to be passed on, if an event ended with it that says something.
    pub(super) fn line(&mut self, line: &str) -> Option<String> {
        let line = line.trim_end_matches(['\n', '\r']);
        if !line.is_empty() {
            // Other fields say how to reconnect and what kind of event it is.
            if let Some(data) = line.strip_prefix("data:") {
                if !self.data.is_empty() {
                    self.data.push('\n');
                }
                self.data.push_str(data.strip_prefix(' ').unwrap_or(data));
            }
            return None;
        }
        let data = std::mem::take(&mut self.data);
        if data.is_empty() || data == "[DONE]" {
            return None;
        }
        let text = match serde_json::from_str(&data) {
            Ok(Value::Object(event)) => self.event(event),
            Ok(other) => self.other(other),
            Err(_) => self.other(Value::String(data)),
        };
        Some(text).filter(|text| !text.is_empty())
    }

    fn event(&mut self, mut event: Map<String, Value>) -> String {
        if let Some(Value::Array(choices)) = event.get("choices") {
            let text = choices.iter().fold(String::new(), |mut text, choice| {
                let (index, piece) = self.choice(choice);
                // Only one answer can be read while it is written.
                if index == 0 {
                    text.push_str(&piece);
                }
                text
            });
            event.remove("choices");
            self.keep(event);
            return text;
        }
        if let Some(Value::String(content)) = event.get("content") {
            let text = content.clone();
            self.content.get_or_insert_default().push_str(&text);
            event.remove("content");
            self.keep(event);
            return text;
        }
        self.other(Value::Object(event))
    }

    /// Takes one choice of an event; which it is, and its text.
    fn choice(&mut self, choice: &Value) -> (u64, String) {
        let index = choice.get("index").and_then(Value::as_u64).unwrap_or(0);
        let piece = choice
            .pointer("/delta/content")
            .or_else(|| choice.get("text"))
            .and_then(Value::as_str)
            .unwrap_or_default();
        let so_far = self.choices.entry(index).or_default();
        so_far.is_message |= choice.get("delta").is_some();
        so_far.text.push_str(piece);
        match choice.get("finish_reason") {
            None | Some(Value::Null) => {}
            Some(reason) => so_far.finish_reason = reason.clone(),
        }
        (index, piece.to_owned())
    }

    fn other(&mut self, event: Value) -> String {
        let text = format!("{event}\n");
        self.others.push(event);
        text
    }

    fn keep(&mut self, event: Map<String, Value>) {
        let said = event.into_iter().filter(|(_, value)| !value.is_null());
        self.envelope.extend(said);
    }

    /// The answer that the events amount to.
    pub(super) fn whole(self) -> Value {
        let Self {
            data: _,
            mut envelope,
            choices,
            content,
            others,
        } = self;
        if choices.is_empty() && content.is_none() {
            return Value::Array(others);
        }
        if let Some(Value::String(object)) = envelope.get_mut("object") {
            *object = object.replace(".chunk", "");
        }
        if let Some(content) = content {
            envelope.insert("content".to_owned(), Value::String(content));
        }
        if !choices.is_empty() {
            let choices = choices.into_iter().map(Choice::whole).collect();
            envelope.insert("choices".to_owned(), Value::Array(choices));
        }
        Value::Object(envelope)
    }
}

impl Choice {
    fn whole((index, choice): (u64, Self)) -> Value {
        let Self {
            text,
            is_message,
            finish_reason,
        } = choice;
        if is_message {
            let message = json!({"role": "assistant", "content": text});
            json!({"index": index, "message": message, "finish_reason": finish_reason})
        } else {
            json!({"index": index, "text": text, "finish_reason": finish_reason})
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assemble(stream: &str) -> (Vec<String>, Value) {
        let mut assembly = Assembly::default();
        let pieces = stream
            .split_inclusive('\n')
            .filter_map(|line| assembly.line(line))
            .collect();
        (pieces, assembly.whole())
    }

    #[test]
    fn a_chat_stream_amounts_to_the_answer_without_one() {
        let stream = "data: {\"object\":\"chat.completion.chunk\",\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":null},\"finish_reason\":null}]}\r\n\r\n\
            : a comment\n\
            data: {\"object\":\"chat.completion.chunk\",\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}],\"usage\":null}\n\n\
            data: {\"object\":\"chat.completion.chunk\",\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"b\"},\"finish_reason\":\"stop\"}]}\n\n\
            data: {\"choices\":[],\"usage\":{\"completion_tokens\":2}}\n\n\
            data: [DONE]\n\n";
        let (pieces, whole) = assemble(stream);
        assert_eq!(pieces, ["a", "b"]);
        assert_eq!(
            whole,
            json!({
                "object": "chat.completion",
                "model": "m",
                "usage": {"completion_tokens": 2},
                "choices": [{"index": 0, "message": {"role": "assistant", "content": "ab"}, "finish_reason": "stop"}],
            })
        );
    }

    #[test]
    fn other_streams_keep_their_shape() {
        let (pieces, whole) =
            assemble("data: {\"content\":\"x\"}\n\ndata: {\"content\":\"y\",\"stop\":true}\n\n");
        assert_eq!(pieces, ["x", "y"]);
        assert_eq!(whole, json!({"stop": true, "content": "xy"}));

        let (pieces, whole) =
            assemble("event: e\ndata: {\"a\":1}\n\ndata: not json\ndata: at all\n\ndata: cut");
        assert_eq!(pieces, ["{\"a\":1}\n", "\"not json\\nat all\"\n"]);
        assert_eq!(whole, json!([{"a": 1}, "not json\nat all"]));
    }
}
