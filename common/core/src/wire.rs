//! Encoding of jobs and results: JSON or a MessagePack map, distinguished by the first byte.
//!
//! `{` begins JSON; 0x80–0x8f, 0xde and 0xdf begin a MessagePack map. Only maps are accepted: in a
//! compact array, a field that is inserted in the middle would shift the meaning of all that
//! follow. A result has the encoding of its job.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::number::{self, NumberError};
use crate::units::ByteCount;

/// Maximum size of a payload by default.
pub const MAX_PAYLOAD: ByteCount = ByteCount::mib(1);

/// Highest value of the setting `worker.max_payload`. Such a payload and its envelope fit into one
/// frame between worker and runner.
pub const LARGEST_PAYLOAD: ByteCount = ByteCount::mib(16);

/// Maximum number of bytes that one result returns; base64 makes them a third longer.
pub const MAX_RESULT: ByteCount = ByteCount::mib(40);

/// Maximum size of an encoded result. Redis accepts 64 MiB in one argument (`proto-max-bulk-len`).
pub const MAX_ENCODED_RESULT: ByteCount = ByteCount::mib(60);

/// Maximum nesting depth of a payload's data. It is the limit of serde_json, applied to MessagePack
/// too.
const MAX_DEPTH: usize = 128;

/// One of the two encodings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// JSON text.
    #[default]
    Json,
    /// MessagePack with named maps.
    MessagePack,
}

impl Encoding {
    /// Returns the name used in keys and fields.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::MessagePack => "msgpack",
        }
    }
}

/// The reason why bytes could not be decoded.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// There are no bytes.
    #[error("the payload is empty")]
    Empty,
    /// There are more bytes than the cap.
    #[error(
        "the payload of {size} is above the cap of {cap} (worker.max_payload, {LARGEST_PAYLOAD} \
         at most): compress large data, or put it into an image"
    )]
    TooLarge {
        /// The size of the payload.
        size: ByteCount,
        /// The cap.
        cap: ByteCount,
    },
    /// The first byte begins neither encoding.
    #[error(
        "the payload begins with byte 0x{first:02x} (want JSON's {{ or a MessagePack map; \
         MessagePack arrays are refused)"
    )]
    UnknownEncoding {
        /// The first byte.
        first: u8,
    },
    /// A number that decoding would change.
    #[error("bad payload: {0}")]
    Number(#[from] NumberError),
    /// The JSON is malformed, or does not match the wanted type.
    #[error("bad JSON payload: {detail}")]
    Json {
        /// The parser's message, cut to a bounded length.
        detail: String,
    },
    /// The MessagePack is malformed, or does not match the wanted type.
    #[error("bad MessagePack payload: {detail}")]
    MessagePack {
        /// The parser's message, cut to a bounded length.
        detail: String,
    },
}

/// Returns the encoding that the first byte indicates.
///
/// # Errors
/// Fails if there are no bytes, or the first byte begins neither encoding.
pub fn sniff(bytes: &[u8]) -> Result<Encoding, WireError> {
    match bytes.first() {
        None => Err(WireError::Empty),
        Some(b'{') => Ok(Encoding::Json),
        Some(0x80..=0x8f | 0xde | 0xdf) => Ok(Encoding::MessagePack),
        Some(&first) => Err(WireError::UnknownEncoding { first }),
    }
}

/// Checks the size and the numbers of a payload, and returns its encoding.
fn check(bytes: &[u8], cap: ByteCount) -> Result<Encoding, WireError> {
    if bytes.len() > cap.as_usize() {
        return Err(WireError::TooLarge {
            size: ByteCount(bytes.len() as u64),
            cap,
        });
    }
    let encoding = sniff(bytes)?;
    match encoding {
        Encoding::Json => number::check_json(bytes)?,
        Encoding::MessagePack => number::check_messagepack(bytes, MAX_DEPTH)?,
    }
    Ok(encoding)
}

/// Decodes a value of at most `cap` bytes, in either encoding.
///
/// # Errors
/// Fails if the value is too large, in neither encoding, malformed or of another type, or if it
/// contains a number that decoding would change.
pub fn decode<T: DeserializeOwned>(
    bytes: &[u8],
    cap: ByteCount,
) -> Result<(T, Encoding), WireError> {
    let encoding = check(bytes, cap)?;
    let value = match encoding {
        Encoding::Json => serde_json::from_slice(bytes).map_err(|e| WireError::Json {
            detail: crate::id::clip(&e.to_string(), 300),
        })?,
        Encoding::MessagePack => {
            read_messagepack(bytes).map_err(|detail| WireError::MessagePack {
                detail: crate::id::clip(&detail, 300),
            })?
        }
    };
    Ok((value, encoding))
}

/// Decodes a value as [`decode`] does, and also returns the names of fields that its type does not
/// have: the first [`UNKNOWN_NAMED`] of them, each cut to a bounded length, such as
/// `limits.timeoutms`.
///
/// # Errors
/// As [`decode`].
pub fn decode_noting<T: DeserializeOwned>(
    bytes: &[u8],
    cap: ByteCount,
) -> Result<(T, Unknown), WireError> {
    let mut unknown = Unknown::default();
    let note = |path: serde_ignored::Path<'_>| unknown.note(&path);
    let value = match check(bytes, cap)? {
        Encoding::Json => {
            let mut reader = serde_json::Deserializer::from_slice(bytes);
            let read = serde_ignored::deserialize(&mut reader, note);
            read.and_then(|value| reader.end().map(|()| value))
                .map_err(|e| WireError::Json {
                    detail: crate::id::clip(&e.to_string(), 300),
                })?
        }
        Encoding::MessagePack => {
            let mut rest = bytes;
            let mut reader = rmp_serde::Deserializer::new(&mut rest);
            reader.set_max_depth(MAX_DEPTH);
            let read = serde_ignored::deserialize(&mut reader, note).map_err(|e| e.to_string());
            read.and_then(|value| at_end(rest).map(|()| value))
                .map_err(|detail| WireError::MessagePack {
                    detail: crate::id::clip(&detail, 300),
                })?
        }
    };
    Ok((value, unknown))
}

/// Maximum number of unknown fields that are named. Further ones are only counted.
pub const UNKNOWN_NAMED: usize = 8;

/// The fields of a payload that its type does not have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unknown {
    /// Their names, prefixed with the names of the maps that contain them.
    pub names: Vec<String>,
    /// The number of unknown fields beyond those in `names`.
    pub more: usize,
}

impl Unknown {
    fn note(&mut self, path: &serde_ignored::Path<'_>) {
        if self.names.len() < UNKNOWN_NAMED {
            // serde_ignored writes `?` for the value of an optional field.
            let name = path.to_string().replace(".?", "");
            self.names.push(crate::id::clip(&name, 64));
        } else {
            self.more += 1;
        }
    }

    /// Returns a warning for each unknown field, for the result of its job.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings: Vec<String> = self
            .names
            .iter()
            .map(|name| format!("unknown field {name:?} was ignored"))
            .collect();
        if self.more > 0 {
            warnings.push(format!("{} more unknown fields were ignored", self.more));
        }
        warnings
    }
}

fn read_messagepack<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let mut rest = bytes;
    let mut reader = rmp_serde::Deserializer::new(&mut rest);
    reader.set_max_depth(MAX_DEPTH);
    let value = T::deserialize(&mut reader).map_err(|e| e.to_string())?;
    at_end(rest).map(|()| value)
}

fn at_end(rest: &[u8]) -> Result<(), String> {
    if rest.is_empty() {
        Ok(())
    } else {
        Err(format!("{} bytes after the end", rest.len()))
    }
}

/// Encodes a value.
///
/// # Panics
/// Never for this crate's own types: they have string keys and no fallible serialiser.
#[must_use]
pub fn encode<T: Serialize>(value: &T, encoding: Encoding) -> Vec<u8> {
    match encoding {
        Encoding::Json => serde_json::to_vec(value).expect("our types have string keys only"),
        Encoding::MessagePack => {
            rmp_serde::to_vec_named(value).expect("our types have known lengths")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Job;
    use crate::outcome::{JobResult, Outcome};

    fn job() -> Job {
        serde_json::from_str(
            r#"{"image":"python","code":"print(input_data)","input":{"a":[1,2.5,null,"x"]},
                "env":{"A":"b"},"stdin":"hi","limits":{"timeout_ms":100,"memory":"64MiB"}}"#,
        )
        .unwrap()
    }

    #[test]
    fn jobs_and_results_survive_both_encodings() {
        let mut result = JobResult::bare("a".parse().unwrap(), Outcome::OutOfMemory);
        result.stdout = vec![0xff, 0xfe].into();
        for encoding in [Encoding::Json, Encoding::MessagePack] {
            let bytes = encode(&job(), encoding);
            assert_eq!(
                decode::<Job>(&bytes, MAX_PAYLOAD).unwrap(),
                (job(), encoding)
            );
            let bytes = encode(&result, encoding);
            assert_eq!(decode::<JobResult>(&bytes, MAX_PAYLOAD).unwrap().0, result);
        }
    }

    #[test]
    fn a_value_of_null_is_not_the_lack_of_one() {
        let mut result = JobResult::bare("a".parse().unwrap(), Outcome::Succeeded);
        for value in [None, Some(serde_json::Value::Null), Some(1.into())] {
            result.value = value;
            for encoding in [Encoding::Json, Encoding::MessagePack] {
                let bytes = encode(&result, encoding);
                assert_eq!(decode::<JobResult>(&bytes, MAX_PAYLOAD).unwrap().0, result);
            }
            let json = String::from_utf8(encode(&result, Encoding::Json)).unwrap();
            assert_eq!(
                json.contains("\"value\":"),
                result.value.is_some(),
                "{json}"
            );
        }
    }

    #[test]
    fn a_number_that_would_change_on_its_way_is_refused_by_name() {
        for (case, bytes, number) in [
            (
                "an integer of 71 bits",
                br#"{"image":"p","code":"","input":{"n":1180591620717411303425}}"#.to_vec(),
                "1180591620717411303425",
            ),
            (
                "NaN in JSON",
                br#"{"image":"p","code":"","input":[NaN]}"#.to_vec(),
                "NaN",
            ),
            (
                "infinity in MessagePack",
                rmp_serde::to_vec_named(&std::collections::BTreeMap::from([(
                    "input",
                    f64::INFINITY,
                )]))
                .unwrap(),
                "Infinity",
            ),
        ] {
            let error = decode::<Job>(&bytes, MAX_PAYLOAD).expect_err(case);
            assert!(
                decode_noting::<Job>(&bytes, MAX_PAYLOAD).is_err(),
                "case {case}"
            );
            assert!(
                matches!(error, WireError::Number(_)),
                "case {case}: {error}"
            );
            assert!(error.to_string().contains(number), "case {case}: {error}");
        }
    }

    #[test]
    fn an_old_reader_ignores_what_a_newer_writer_adds() {
        let newer =
            br#"{"image":"python","code":"1","from_the_future":{"deep":[1]},"limits":{"gpus":3}}"#;
        let (job, _) = decode::<Job>(newer, MAX_PAYLOAD).unwrap();
        assert_eq!(job.code.as_deref(), Some("1"));
        let older = br#"{"id":"a","outcome":"succeeded"}"#;
        assert_eq!(
            decode::<JobResult>(older, MAX_PAYLOAD).unwrap().0.outcome,
            Outcome::Succeeded
        );
    }

    #[test]
    fn hostile_bytes_are_refused_with_a_reason() {
        let deep = [vec![0x81, 0xa5], b"input".to_vec(), vec![0x91; 100_000]].concat();
        for (case, bytes) in [
            ("empty", Vec::new()),
            ("json array", b"[1]".to_vec()),
            (
                "messagepack array",
                rmp_serde::to_vec(&("python", "code")).unwrap(),
            ),
            ("cut json", br#"{"image":"py"#.to_vec()),
            ("wrong type", br#"{"image":3,"code":"x"}"#.to_vec()),
            ("missing image", br#"{"code":"x"}"#.to_vec()),
            (
                "bytes after the end",
                [encode(&job(), Encoding::MessagePack), vec![0]].concat(),
            ),
            (
                "map that claims four billion entries",
                vec![0xdf, 0xff, 0xff, 0xff, 0xff],
            ),
            ("nested too deep", deep),
            (
                "deep json",
                [b"{\"input\":".to_vec(), vec![b'['; 100_000]].concat(),
            ),
            (
                "bad byte count",
                br#"{"image":"p","code":"","limits":{"memory":"lots"}}"#.to_vec(),
            ),
            ("bad image name", br#"{"image":"a b","code":""}"#.to_vec()),
        ] {
            let error = decode::<Job>(&bytes, MAX_PAYLOAD).expect_err(case);
            assert!(error.to_string().len() < 500, "case {case}");
        }
        let huge = vec![b'{'; MAX_PAYLOAD.as_usize() + 1];
        assert!(matches!(
            decode::<Job>(&huge, MAX_PAYLOAD),
            Err(WireError::TooLarge { .. })
        ));
    }

    #[test]
    fn unknown_fields_are_noted_within_bounds() {
        let text = r#"{"image":"python","code":"1","timeout_ms":1,"limits":{"timeoutms":1},
            "fetches":["*"],"input":{"anything":{"goes":1}},"env":{"A":"b"}}"#;
        let (job, unknown) = decode_noting::<Job>(text.as_bytes(), MAX_PAYLOAD).unwrap();
        assert_eq!(unknown.names, ["timeout_ms", "limits.timeoutms", "fetches"]);
        assert_eq!(
            unknown.warnings()[1],
            "unknown field \"limits.timeoutms\" was ignored"
        );
        let packed = encode(
            &serde_json::from_str::<serde_json::Value>(text).unwrap(),
            Encoding::MessagePack,
        );
        let (same, also) = decode_noting::<Job>(&packed, MAX_PAYLOAD).unwrap();
        assert_eq!((same, also), (job, unknown));

        let many: serde_json::Map<String, serde_json::Value> = (0..1000)
            .map(|n| (format!("{n}{}", "x".repeat(1000)), true.into()))
            .chain([("image".to_owned(), "python".into())])
            .collect();
        let text = serde_json::to_vec(&many).unwrap();
        let (_job, unknown) = decode_noting::<Job>(&text, ByteCount::mib(2)).unwrap();
        assert_eq!((unknown.names.len(), unknown.more), (UNKNOWN_NAMED, 992));
        assert!(unknown.names.iter().all(|name| name.len() < 70));
        assert_eq!(unknown.warnings().len(), UNKNOWN_NAMED + 1);
    }
}
