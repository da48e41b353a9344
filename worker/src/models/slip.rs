//! JSON form of a program's inference requests and their answers, documented in
//! `docs/inference.md`.

use sandhog_common::id::ImageName;
use sandhog_common::units::Millis;
use sandhog_runner::protocol::Exception;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// An inference request, as a program writes it.
#[derive(Debug, Deserialize)]
pub(super) struct Asks {
    pub(super) id: u64,
    pub(super) image: ImageName,
    #[serde(default)]
    pub(super) input: Value,
    #[serde(default)]
    pub(super) method: Option<String>,
    #[serde(default)]
    pub(super) path: Option<String>,
    #[serde(default)]
    pub(super) timeout_ms: Option<Millis>,
}

/// An answer, as a program reads it.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    /// The id of the request; `null` if the request has no valid id.
    pub(super) id: Option<u64>,
    #[serde(flatten)]
    pub(super) answer: Told,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Told {
    Value(Value),
    Error(Refusal),
}

/// Reason for which there is no answer.
#[derive(Debug, Serialize)]
pub(super) struct Refusal {
    pub(super) code: String,
    pub(super) message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) exception: Option<Raised>,
}

/// An exception raised by a model.
#[derive(Debug, Serialize)]
pub(super) struct Raised {
    #[serde(rename = "type")]
    pub(super) name: String,
    pub(super) message: String,
    pub(super) traceback: String,
}

impl Refusal {
    pub(super) fn new(code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
            exception: None,
        }
    }

    pub(super) fn raised(exception: Exception) -> Self {
        Self {
            code: "model_error".to_owned(),
            message: format!("{}: {}", exception.name, exception.message),
            exception: Some(Raised {
                name: exception.name,
                message: exception.message,
                traceback: exception.traceback,
            }),
        }
    }
}

/// Returns the id of a request that is otherwise invalid, so that the error can be returned to its
/// sender.
pub(super) fn id_of(data: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Numbered {
        id: u64,
    }
    serde_json::from_slice(data).ok().map(|Numbered { id }| id)
}
