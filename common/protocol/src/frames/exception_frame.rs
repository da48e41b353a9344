//! The wire form of an exception in frames.

use sandhog_core::outcome::Exception;
use serde::{Deserialize, Serialize};

/// Wire form of [`Exception`] in frames and in the JSON of harnesses and model servers: the field
/// with the type's name is called `name`. In a result, which [`Exception`] itself serializes, it is
/// called `type`.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Exception")]
pub(crate) struct ExceptionFrame {
    name: String,
    message: String,
    traceback: String,
}

/// The same wire form of an exception that may be missing, for `#[serde(with)]`.
pub(super) mod optional {
    use sandhog_core::outcome::Exception;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::ExceptionFrame;

    pub(in crate::frames) fn serialize<S: Serializer>(
        exception: &Option<Exception>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(transparent)]
        struct Borrowed<'a>(#[serde(with = "ExceptionFrame")] &'a Exception);
        exception.as_ref().map(Borrowed).serialize(serializer)
    }

    pub(in crate::frames) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Exception>, D::Error> {
        #[derive(Deserialize)]
        #[serde(transparent)]
        struct Owned(#[serde(with = "ExceptionFrame")] Exception);
        let exception = Option::<Owned>::deserialize(deserializer)?;
        Ok(exception.map(|Owned(exception)| exception))
    }
}
