//! Decodes answers of Redis into this crate's types.
//!
//! A [`Reply`] carries the name of its command, so that an error about an unexpected answer names
//! the command. The error describes the kind of the answer, never its content, which may be
//! hostile.

use std::str::FromStr;

use redis::Value;

use super::QueueError;
use crate::id::IdError;

/// One answer, or one part of an answer.
#[derive(Debug)]
pub(super) struct Reply {
    command: &'static str,
    value: Value,
}

/// The parts of an array, taken in order.
#[derive(Debug)]
pub(super) struct Parts {
    command: &'static str,
    rest: std::vec::IntoIter<Value>,
}

impl Reply {
    /// Wraps an answer to `command`.
    pub(super) fn new(command: &'static str, value: Value) -> Self {
        Self { command, value }
    }

    /// Returns whether the answer is nil.
    pub(super) fn is_nil(&self) -> bool {
        matches!(self.value, Value::Nil)
    }

    /// Returns the answer's bytes.
    pub(super) fn bytes(self) -> Result<Vec<u8>, QueueError> {
        match self.value {
            Value::BulkString(bytes) => Ok(bytes),
            Value::SimpleString(text) => Ok(text.into_bytes()),
            Value::Okay => Ok(b"OK".to_vec()),
            Value::Int(n) => Ok(n.to_string().into_bytes()),
            other => Err(wrong(self.command, &other)),
        }
    }

    /// Returns the answer's bytes as text.
    pub(super) fn text(self) -> Result<String, QueueError> {
        let command = self.command;
        String::from_utf8(self.bytes()?).map_err(|_not_utf8| QueueError::Reply {
            command,
            detail: "text that is not UTF-8".to_owned(),
        })
    }

    /// Returns the answer's bytes as text; `None` if it is nil or empty.
    pub(super) fn maybe_text(self) -> Result<Option<String>, QueueError> {
        if self.is_nil() {
            return Ok(None);
        }
        Ok(Some(self.text()?).filter(|text| !text.is_empty()))
    }

    /// Parses a number.
    pub(super) fn number<T: FromStr>(self) -> Result<T, QueueError> {
        let command = self.command;
        self.text()?.parse().map_err(|_bad| QueueError::Reply {
            command,
            detail: "text that is not a number".to_owned(),
        })
    }

    /// Parses a number; `None` if the answer is nil or empty.
    pub(super) fn maybe_number<T: FromStr>(self) -> Result<Option<T>, QueueError> {
        let command = self.command;
        match self.maybe_text()? {
            None => Ok(None),
            Some(text) => Self::new(command, Value::BulkString(text.into_bytes()))
                .number()
                .map(Some),
        }
    }

    /// Parses a name.
    pub(super) fn name<T: FromStr<Err = IdError>>(self) -> Result<T, QueueError> {
        let command = self.command;
        self.text()?
            .parse()
            .map_err(|source| QueueError::Name { command, source })
    }

    /// Returns the parts of an array. Nil has no parts.
    pub(super) fn parts(self) -> Result<Parts, QueueError> {
        let values = match self.value {
            Value::Array(values) => values,
            Value::Nil => Vec::new(),
            other => return Err(wrong(self.command, &other)),
        };
        Ok(Parts {
            command: self.command,
            rest: values.into_iter(),
        })
    }
}

impl Parts {
    /// Returns the next part.
    pub(super) fn part(&mut self) -> Result<Reply, QueueError> {
        self.next().ok_or_else(|| QueueError::Reply {
            command: self.command,
            detail: "too few parts".to_owned(),
        })
    }
}

impl Iterator for Parts {
    type Item = Reply;

    fn next(&mut self) -> Option<Reply> {
        self.rest
            .next()
            .map(|value| Reply::new(self.command, value))
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
pub(super) fn unknown_word(command: &'static str, word: &str) -> QueueError {
    QueueError::Reply {
        command,
        detail: format!("unknown word {:?}", crate::id::clip(word, 40)),
    }
}
