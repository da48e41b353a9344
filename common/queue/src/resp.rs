//! Decodes answers of Redis into this crate's types.
//!
//! A [`RespValue`] carries the name of its command, so that an error about an unexpected answer
//! names the command. The error describes the kind of the answer, never its content, which may be
//! hostile.

use std::str::FromStr;

use redis::Value;

use crate::QueueError;
use sandhog_core::id::IdError;

/// One answer, or one part of an answer.
#[derive(Debug)]
pub(crate) struct RespValue {
    command: &'static str,
    value: Value,
}

/// The parts of an array, taken in order.
#[derive(Debug)]
pub(crate) struct RespArray {
    command: &'static str,
    rest: std::vec::IntoIter<Value>,
}

impl RespValue {
    /// Wraps an answer to `command`.
    pub(crate) fn new(command: &'static str, value: Value) -> Self {
        Self { command, value }
    }

    /// Returns whether the answer is nil.
    pub(crate) fn is_nil(&self) -> bool {
        matches!(self.value, Value::Nil)
    }

    /// Returns the answer's bytes.
    pub(crate) fn bytes(self) -> Result<Vec<u8>, QueueError> {
        match self.value {
            Value::BulkString(bytes) => Ok(bytes),
            Value::SimpleString(text) => Ok(text.into_bytes()),
            Value::Okay => Ok(b"OK".to_vec()),
            Value::Int(n) => Ok(n.to_string().into_bytes()),
            other => Err(wrong(self.command, &other)),
        }
    }

    /// Returns the answer's bytes as text.
    pub(crate) fn text(self) -> Result<String, QueueError> {
        let command = self.command;
        String::from_utf8(self.bytes()?).map_err(|_not_utf8| QueueError::Reply {
            command,
            detail: "text that is not UTF-8".to_owned(),
        })
    }

    /// Returns the answer's bytes as text; `None` if it is nil or empty.
    pub(crate) fn maybe_text(self) -> Result<Option<String>, QueueError> {
        if self.is_nil() {
            return Ok(None);
        }
        Ok(Some(self.text()?).filter(|text| !text.is_empty()))
    }

    /// Parses a number.
    pub(crate) fn number<T: FromStr>(self) -> Result<T, QueueError> {
        let command = self.command;
        self.text()?.parse().map_err(|_bad| QueueError::Reply {
            command,
            detail: "text that is not a number".to_owned(),
        })
    }

    /// Parses a number; `None` if the answer is nil or empty.
    pub(crate) fn maybe_number<T: FromStr>(self) -> Result<Option<T>, QueueError> {
        let command = self.command;
        match self.maybe_text()? {
            None => Ok(None),
            Some(text) => Self::new(command, Value::BulkString(text.into_bytes()))
                .number()
                .map(Some),
        }
    }

    /// Parses a name.
    pub(crate) fn name<T: FromStr<Err = IdError>>(self) -> Result<T, QueueError> {
        let command = self.command;
        self.text()?
            .parse()
            .map_err(|source| QueueError::Name { command, source })
    }

    /// Returns the parts of an array. Nil has no parts.
    pub(crate) fn parts(self) -> Result<RespArray, QueueError> {
        let values = match self.value {
            Value::Array(values) => values,
            Value::Nil => Vec::new(),
            other => return Err(wrong(self.command, &other)),
        };
        Ok(RespArray {
            command: self.command,
            rest: values.into_iter(),
        })
    }
}

impl RespArray {
    /// Returns the next part.
    pub(crate) fn part(&mut self) -> Result<RespValue, QueueError> {
        self.next().ok_or_else(|| QueueError::Reply {
            command: self.command,
            detail: "too few parts".to_owned(),
        })
    }
}

impl Iterator for RespArray {
    type Item = RespValue;

    fn next(&mut self) -> Option<RespValue> {
        self.rest
            .next()
            .map(|value| RespValue::new(self.command, value))
    }
}

fn wrong(command: &'static str, value: &Value) -> QueueError {
    let kind = match value {
        Value::Nil => "nothing",
        Value::Int(_) => "a number",
        Value::BulkString(_) | Value::SimpleString(_) | Value::Okay => "text",
        Value::Array(_) => "an array",
        _ => "another kind of value",
    };
    QueueError::Reply {
        command,
        detail: format!("{kind}, which is not the expected kind of value"),
    }
}

/// Error for a word that this version does not know. It comes from another version's script.
pub(crate) fn unknown_word(command: &'static str, word: &str) -> QueueError {
    QueueError::Reply {
        command,
        detail: format!("unknown word {:?}", sandhog_core::id::clip(word, 40)),
    }
}
