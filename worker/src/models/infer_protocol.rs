//! JSON form of a program's inference requests and their answers, documented in
//! `docs/guides/inference.md`.

use sandhog_core::id::ImageName;
use sandhog_core::outcome::Exception;
use sandhog_core::units::Millis;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// An inference request, as a program writes it.
#[derive(Debug, Deserialize)]
pub(super) struct InferProtocolRequest {
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
pub(super) struct InferProtocolResponse {
    /// The id of the request; `null` if the request has no valid id.
    pub(super) id: Option<u64>,
    #[serde(flatten)]
    pub(super) answer: ResponseBody,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ResponseBody {
    Value(Value),
    Error(InferRefusal),
}

/// Reason for which there is no answer.
#[derive(Debug, Serialize)]
pub(super) struct InferRefusal {
    pub(super) code: String,
    pub(super) message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) exception: Option<Exception>,
}

impl InferRefusal {
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
            exception: Some(exception),
        }
    }
}

/// Returns the id of a request that is otherwise invalid, so that the error can be returned to its
/// sender.
pub(super) fn id_of(data: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct OnlyId {
        id: u64,
    }
    serde_json::from_slice(data).ok().map(|OnlyId { id }| id)
}
