//! Bytes that are usually text: a program's standard input and what it printed.
//!
//! Valid UTF-8 travels as a string. Anything else travels as `{"base64": "…"}` in JSON, so that no
//! byte is ever lost or replaced; MessagePack may also carry a plain `bin`. Text that JSON's
//! escapes would make more than a third longer may travel as base64 too: 16 MiB of NUL bytes would
//! be 96 MiB of `\\u0000`.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{self, MapAccess};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes, written as a string if they are valid UTF-8, and as `{"base64": …}` otherwise.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Blob(pub Vec<u8>);

impl Blob {
    /// Returns the bytes as text, with every invalid sequence replaced by U+FFFD. For display only.
    #[must_use]
    pub fn lossy(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }

    /// Returns whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&str> for Blob {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl From<Vec<u8>> for Blob {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({:?})", self.lossy())
    }
}

/// Length in bytes below which all text is written as a string.
const SHORT_TEXT_LEN: usize = 4 << 10;

/// Length from which line ends and quotes also count as escapes. Ordinary text may contain many of
/// them.
const LONG_TEXT_LEN: usize = 1 << 20;

/// Returns whether text is written as a JSON string. It is not if it is long, or binary data that
/// happens to be valid UTF-8, and escapes would make it longer than base64.
#[must_use]
pub fn is_compact(text: &str) -> bool {
    let escapes = |byte| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' => usize::from(text.len() >= LONG_TEXT_LEN),
        0x00..=0x1f => 5,
        _plain => 0,
    };
    text.len() < SHORT_TEXT_LEN || text.bytes().map(escapes).sum::<usize>() <= text.len() / 3
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) if !serializer.is_human_readable() || is_compact(text) => {
                serializer.serialize_str(text)
            }
            Ok(_) | Err(_) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("base64", &STANDARD.encode(&self.0))?;
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BlobVisitor;
        impl<'de> de::Visitor<'de> for BlobVisitor {
            type Value = Blob;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, or {\"base64\": \"…\"}")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Blob, E> {
                Ok(Blob::from(text))
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Blob, E> {
                Ok(Blob(bytes.to_vec()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Blob, A::Error> {
                let Some((key, encoded)) = map.next_entry::<String, String>()? else {
                    return Err(de::Error::missing_field("base64"));
                };
                if key != "base64" {
                    return Err(de::Error::unknown_field(&key, &["base64"]));
                }
                STANDARD
                    .decode(&encoded)
                    .map(Blob)
                    .map_err(|e| de::Error::custom(format_args!("bad base64: {e}")))
            }
        }
        deserializer.deserialize_any(BlobVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_a_string_and_other_bytes_are_base64() {
        assert_eq!(
            serde_json::to_string(&Blob::from("héllo\n")).unwrap(),
            "\"héllo\\n\""
        );
        let raw = Blob(vec![0xff, 0, 1]);
        let json = serde_json::to_string(&raw).unwrap();
        assert_eq!(json, "{\"base64\":\"/wAB\"}");
        assert_eq!(serde_json::from_str::<Blob>(&json).unwrap(), raw);
        let packed = rmp_serde::to_vec_named(&raw).unwrap();
        assert_eq!(rmp_serde::from_slice::<Blob>(&packed).unwrap(), raw);
        assert!(serde_json::from_str::<Blob>("{\"base65\":\"\"}").is_err());
    }

    #[test]
    fn long_text_is_never_much_longer_in_json() {
        for (case, text, is_text) in [
            ("lines", "a line of a program\n".repeat(1000), true),
            ("short lines", "1\n".repeat(5000), true),
            ("many short lines", "1\n".repeat(600_000), false),
            ("NUL", "\0".repeat(8192), false),
            ("a little of it", "\0".repeat(100), true),
        ] {
            let blob = Blob::from(text.as_str());
            let json = serde_json::to_string(&blob).unwrap();
            assert_eq!(json.starts_with('"'), is_text, "{case}");
            assert!(json.len() <= text.len() * 4 / 3 + 6_000, "{case}");
            assert_eq!(serde_json::from_str::<Blob>(&json).unwrap(), blob, "{case}");
            let packed = rmp_serde::to_vec_named(&blob).unwrap();
            assert_eq!(rmp_serde::from_slice::<Blob>(&packed).unwrap(), blob);
        }
    }
}
