//! Server-sent events, and the answer that they form together.
//!
//! Events in the format of OpenAI's chat and completion streams carry pieces of an answer. Their
//! text is passed on, and the pieces of every field are joined to the answer that a call without
//! `stream` would have returned. The same applies to llama.cpp's own field `content`. Events in any
//! other format are passed on unchanged, one per line, and their list is the answer.
//!
//! An error, or an answer without its end, is a failure of the call.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::choice::{Choice, merge};

/// The events of one answer so far.
#[derive(Debug, Default)]
pub(super) struct StreamAnswer {
    /// The `data` lines of the current event.
    data: String,
    /// The type of the current event.
    kind: String,
    /// The fields of the events beside text. For each field the last value that is not null counts.
    envelope: Map<String, Value>,
    choices: BTreeMap<u64, Choice>,
    /// Text that belongs to no choice.
    content: Option<String>,
    /// Events in other formats.
    others: Vec<Value>,
    /// True once the server has sent the end marker `[DONE]`.
    done: bool,
}

/// The reason for which there is no answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct StreamFailure {
    /// The type of the error, as the server names it. `StreamError` if the server names none.
    pub(super) name: String,
    /// The server's message.
    pub(super) message: String,
}

impl StreamAnswer {
    /// Takes one line. If the line ends an event that has text, returns the text, which is to be
    /// passed on.
    ///
    /// # Errors
    /// Fails if the event is an error. The events after it do not matter.
    pub(super) fn push_line(&mut self, line: &str) -> Result<Option<String>, StreamFailure> {
        let line = line.trim_end_matches(['\n', '\r']);
        if !line.is_empty() {
            // Other fields are about reconnecting.
            if let Some(data) = field(line, "data") {
                if !self.data.is_empty() {
                    self.data.push('\n');
                }
                self.data.push_str(data);
            } else if let Some(kind) = field(line, "event") {
                kind.clone_into(&mut self.kind);
            }
            return Ok(None);
        }
        let data = std::mem::take(&mut self.data);
        let kind = std::mem::take(&mut self.kind);
        self.done |= data == "[DONE]";
        if data.is_empty() || data == "[DONE]" {
            return Ok(None);
        }
        let event = serde_json::from_str(&data).unwrap_or(Value::String(data));
        if let Some(failure) = failure(&kind, &event) {
            return Err(failure);
        }
        let text = match event {
            Value::Object(event) => self.event(event),
            other => self.other(other),
        };
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    /// Returns whether a stream that ends here ends in the middle of an event that its answer
    /// needs.
    pub(super) fn is_within_event(&self) -> bool {
        let has_end = self.done || self.data == "[DONE]";
        let has_all_walls =
            !self.choices.is_empty() && self.choices.values().all(Choice::has_all_walls);
        !has_end && !has_all_walls && !self.data.is_empty()
    }

    fn event(&mut self, mut event: Map<String, Value>) -> String {
        if let Some(Value::Array(choices)) = event.get_mut("choices") {
            let choices = std::mem::take(choices);
            event.remove("choices");
            self.keep(event);
            return choices.into_iter().fold(String::new(), |text, choice| {
                let (index, piece) = self.choice(choice);
                // Only the first choice is passed on as text while the stream runs.
                if index == 0 { text + &piece } else { text }
            });
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

    /// Takes one choice of an event. Returns its index and its text.
    fn choice(&mut self, choice: Value) -> (u64, String) {
        let index = choice.get("index").and_then(Value::as_u64).unwrap_or(0);
        let piece = choice
            .pointer("/delta/content")
            .or_else(|| choice.get("text"))
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        if let Value::Object(fields) = choice {
            self.choices.entry(index).or_default().take(fields);
        }
        (index, piece)
    }

    fn other(&mut self, event: Value) -> String {
        let text = format!("{event}\n");
        self.others.push(event);
        text
    }

    fn keep(&mut self, event: Map<String, Value>) {
        for (name, value) in event.into_iter().filter(|(_, value)| !value.is_null()) {
            merge(
                self.envelope.entry(name).or_insert(Value::Null),
                value,
                false,
            );
        }
    }

    /// Returns the answer that the events form together.
    ///
    /// # Errors
    /// Fails if the events end before the answer is complete.
    pub(super) fn into_value(self) -> Result<Value, StreamFailure> {
        let Self {
            mut envelope,
            choices,
            content,
            others,
            done,
            ..
        } = self;
        if choices.is_empty() && content.is_none() {
            return Ok(Value::Array(others));
        }
        if !done && !choices.values().all(Choice::has_all_walls) {
            return Err(StreamFailure {
                name: "StreamError".to_owned(),
                message: "the stream ended before its answer did".to_owned(),
            });
        }
        if let Some(Value::String(object)) = envelope.get_mut("object") {
            *object = object.replace(".chunk", "");
        }
        if let Some(content) = content {
            envelope.insert("content".to_owned(), Value::String(content));
        }
        if !choices.is_empty() {
            let choices = choices.into_iter().map(Choice::into_value).collect();
            envelope.insert("choices".to_owned(), Value::Array(choices));
        }
        Ok(Value::Object(envelope))
    }
}

/// Returns the value of a line, if the line is this field.
fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let value = line.strip_prefix(name)?.strip_prefix(':')?;
    Some(value.strip_prefix(' ').unwrap_or(value))
}

/// Returns the error that an event reports, if it reports one. An event is an error if its type is
/// `error`, or if its field `error` is not empty.
fn failure(kind: &str, event: &Value) -> Option<StreamFailure> {
    let none = [Value::Null, Value::Bool(false), "".into()];
    let inner = event.get("error").filter(|error| !none.contains(error));
    let said = match inner {
        Some(error) => error,
        None if kind == "error" => event,
        None => return None,
    };
    let text = |name: &str| said.get(name).and_then(Value::as_str);
    let name = text("type").filter(|name| !name.is_empty());
    let message = text("message").or_else(|| said.as_str());
    Some(StreamFailure {
        name: name.unwrap_or("StreamError").chars().take(200).collect(),
        message: message.map_or_else(|| said.to_string(), str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn assemble(stream: &str) -> (Vec<String>, Result<Value, StreamFailure>) {
        let mut answer = StreamAnswer::default();
        let mut pieces = Vec::new();
        for line in stream.split_inclusive('\n') {
            match answer.push_line(line) {
                Ok(piece) => pieces.extend(piece),
                Err(failure) => return (pieces, Err(failure)),
            }
        }
        (pieces, answer.into_value())
    }

    /// Makes a stream of these events with the end marker of OpenAI's servers.
    fn stream(events: &[Value]) -> String {
        let events: String = events.iter().map(|e| format!("data: {e}\n\n")).collect();
        events + "data: [DONE]\n\n"
    }

    /// Makes one event of a chat.
    fn delta(delta: &Value) -> Value {
        json!({"choices": [{"index": 0, "delta": delta, "finish_reason": null}]})
    }

    #[test]
    fn a_chat_stream_amounts_to_the_answer_without_one() {
        let stream = "data: {\"object\":\"chat.completion.chunk\",\"model\":\"m\",\
            \"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":null},\
            \"finish_reason\":null}]}\r\n\r\n\
            : a comment\n\
            data: {\"object\":\"chat.completion.chunk\",\"model\":\"m\",\
            \"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}],\"usage\":null}\n\n\
            data: {\"object\":\"chat.completion.chunk\",\"model\":\"m\",\
            \"choices\":[{\"index\":0,\"delta\":{\"content\":\"b\"},\
            \"finish_reason\":\"stop\"}]}\n\n\
            data: {\"choices\":[],\"usage\":{\"completion_tokens\":2}}\n\n\
            data: [DONE]\n\n";
        let (pieces, whole) = assemble(stream);
        assert_eq!(pieces, ["a", "b"]);
        assert_eq!(
            whole,
            Ok(json!({
                "object": "chat.completion",
                "model": "m",
                "usage": {"completion_tokens": 2},
                "choices": [{
                    "index": 0,
                    "message": {"role": "assistant", "content": "ab"},
                    "finish_reason": "stop",
                }],
            }))
        );
    }

    #[test]
    fn pieces_of_every_field_are_put_together() {
        let call = |parts: Value| delta(&json!({ "tool_calls": parts }));
        let (pieces, whole) = assemble(&stream(&[
            delta(&json!({"role": "assistant", "content": null, "reasoning_content": "hm"})),
            delta(&json!({"role": "assistant", "reasoning_content": "hm"})),
            call(json!([{
                "index": 1, "id": "b", "type": "function",
                "function": {"name": "g", "arguments": ""},
            }])),
            call(json!([{
                "index": 0, "id": "a", "type": "function",
                "function": {"name": "f", "arguments": "{\"x\":"},
            }])),
            call(json!([
                {
                    "index": 0, "id": "a", "type": "function",
                    "function": {"name": "", "arguments": "1}"},
                },
                {"index": 1, "id": null, "function": {"name": "g", "arguments": "{}"}},
            ])),
            json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}),
        ]));
        assert_eq!(pieces, [""; 0]);
        let function = |id, name, arguments| {
            json!({
                "id": id,
                "type": "function",
                "function": {"name": name, "arguments": arguments},
            })
        };
        let message = json!({
            "role": "assistant",
            "content": null,
            "reasoning_content": "hmhm",
            "tool_calls": [function("a", "f", "{\"x\":1}"), function("b", "g", "{}")],
        });
        let want =
            json!({"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]});
        assert_eq!(whole, Ok(want));

        let logged = |text: &str, reason: Value| {
            json!({"choices": [{
                "index": 0,
                "text": text,
                "logprobs": {"tokens": [text], "text_offset": [1]},
                "finish_reason": reason,
            }]})
        };
        let (pieces, whole) = assemble(&stream(&[
            logged("a", Value::Null),
            logged("a", "length".into()),
        ]));
        assert_eq!(pieces, ["a", "a"]);
        let logprobs = json!({"tokens": ["a", "a"], "text_offset": [1, 1]});
        let want =
            json!({"index": 0, "text": "aa", "logprobs": logprobs, "finish_reason": "length"});
        assert_eq!(whole, Ok(json!({ "choices": [want] })));

        let (_, whole) = assemble(&stream(&[
            delta(&json!({"refusal": "I ca"})),
            delta(&json!({"refusal": "nnot"})),
        ]));
        let message = json!({"role": "assistant", "content": null, "refusal": "I cannot"});
        assert_eq!(whole.unwrap()["choices"][0]["message"], message);
    }

    #[test]
    fn other_streams_keep_their_shape() {
        let (pieces, whole) = assemble(
            "data: {\"content\":\"x\",\"tokens\":[1]}\n\n\
            data: {\"content\":\"y\",\"tokens\":[2],\"stop\":true}\n\n",
        );
        assert_eq!(pieces, ["x", "y"]);
        let want = json!({"stop": true, "content": "xy", "tokens": [1, 2]});
        assert_eq!(whole, Ok(want));

        let (pieces, whole) = assemble(
            "event: e\ndata: {\"a\":1,\"error\":false}\n\n\
            data: not json\ndata: at all\n\ndata: cut",
        );
        assert_eq!(
            pieces,
            ["{\"a\":1,\"error\":false}\n", "\"not json\\nat all\"\n"]
        );
        let want = json!([{"a": 1, "error": false}, "not json\nat all"]);
        assert_eq!(whole, Ok(want));
    }

    #[test]
    fn an_error_is_no_answer_wherever_it_comes() {
        let token = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
        let after = "data: [DONE]\n\n";
        for (error, name, message) in [
            (
                "data: {\"error\":{\"type\":\"server_error\",\"message\":\"out of memory\",\
                \"code\":500}}",
                "server_error",
                "out of memory",
            ),
            ("data: {\"error\":\"busy\"}", "StreamError", "busy"),
            (
                "data: {\"error\":{\"code\":7}}",
                "StreamError",
                "{\"code\":7}",
            ),
            ("event: error\ndata: gone", "StreamError", "gone"),
            (
                "data: {\"message\":\"late\",\"type\":\"odd\"}\nevent:error",
                "odd",
                "late",
            ),
            (
                "data: {\"choices\":[],\"error\":{\"message\":\"both\"}}",
                "StreamError",
                "both",
            ),
        ] {
            let want = Err(StreamFailure {
                name: name.to_owned(),
                message: message.to_owned(),
            });
            let (pieces, first) = assemble(&format!("{error}\n\n{token}{after}"));
            assert_eq!((pieces.len(), &first), (0, &want), "{error}");
            let (pieces, later) = assemble(&format!("{token}{error}\n\n{token}{after}"));
            assert_eq!((pieces.len(), &later), (1, &want), "{error}");
        }
        let (pieces, cut) = assemble(token);
        assert_eq!(pieces, ["a"]);
        assert!(cut.unwrap_err().message.contains("before its answer did"));
        assert!(assemble(&format!("{token}{after}")).1.is_ok());
    }
}
