//! Payloads that submitters send and results that they read, in both encodings, and identifiers.

use sandhog_core::class::Class;
use sandhog_core::id::{ImageName, JobId, Namespace, Tag, Tenant, UniqueKey};
use sandhog_core::job::Job;
use sandhog_core::outcome::{JobResult, Outcome, ValueDropped};
use sandhog_core::units::ByteCount;
use sandhog_core::wire::{Encoding, decode, encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

/// Size cap for decoding. Damage can make inputs longer than that.
const DECODED_BYTES_MAX: ByteCount = ByteCount(4096);

/// Requires of bytes from the wire all properties of this module.
///
/// # Panics
/// Panics if one of them does not hold.
pub fn wire(bytes: &[u8]) {
    payload(bytes);
    result(bytes);
    identifier(bytes);
}

/// Requires that a value that decodes is within the cap, and is the same after it is encoded again
/// in either encoding.
fn read<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    let Ok((value, _encoding)) = decode::<T>(bytes, DECODED_BYTES_MAX) else {
        return;
    };
    let cap = DECODED_BYTES_MAX.0;
    assert!(bytes.len() as u64 <= cap, "more than the cap was read");
    for encoding in [Encoding::Json, Encoding::MessagePack] {
        let again = encode(&value, encoding);
        let wide = ByteCount(cap * 64);
        match decode::<T>(&again, wide) {
            Ok((read, found)) => {
                assert_eq!(read, value, "{encoding:?}");
                assert_eq!(found, encoding);
            }
            Err(error) => panic!("a decoded value fails to decode after encoding: {error}"),
        }
    }
}

fn both<T: Serialize>(value: &T) -> Vec<Vec<u8>> {
    [Encoding::Json, Encoding::MessagePack]
        .map(|encoding| encode(value, encoding))
        .into()
}

/// Returns a payload in both encodings.
///
/// # Panics
/// Never: the texts in it are valid.
#[must_use]
pub fn payload_seeds() -> Vec<Vec<u8>> {
    let image = "python".parse().expect("a name");
    let mut job = Job::code(image, "print(1)");
    job.args = vec!["a".to_owned(), "é\u{0}".to_owned()];
    job.stdin.0 = vec![0xff, 0xfe];
    job.env.insert("A".to_owned(), "b".to_owned());
    job.input = json!({"a": [1, -2, 0.5, null, true, "x"], "b": {}});
    job.expect_value = true;
    job.file = Some("a.py".to_owned());
    both(&job)
}

/// Requires that a payload that decodes is the same after it is encoded again.
///
/// # Panics
/// Panics if it is not.
pub fn payload(bytes: &[u8]) {
    read::<Job>(bytes);
}

/// Returns a result in both encodings.
///
/// # Panics
/// Never: the texts in it are valid.
#[must_use]
pub fn result_seeds() -> Vec<Vec<u8>> {
    let id = "1-1".parse().expect("an id");
    let mut result = JobResult::bare(id, Outcome::Failed);
    result.value = Some(json!([1, {"a": "b"}]));
    result.value_dropped = Some(ValueDropped {
        kind: "set".to_owned(),
        reason: "why".to_owned(),
    });
    result.stdout.0 = b"text".to_vec();
    result.stderr.0 = vec![0xc1, 0];
    result.completed = Some(false);
    both(&result)
}

/// Requires that a result that decodes is the same after it is encoded again.
///
/// # Panics
/// Panics if it is not.
pub fn result(bytes: &[u8]) {
    read::<JobResult>(bytes);
}

/// Returns texts that are an identifier of some kind.
#[must_use]
pub fn identifier_seeds() -> Vec<Vec<u8>> {
    [
        "python",
        "a.b-c_d",
        "1-1",
        "cpu+gpu",
        "x:y",
        "sandhog/a:latest",
    ]
    .map(|name| name.as_bytes().to_vec())
    .into()
}

/// Requires that an identifier that is accepted is written as it was read, and contains nothing
/// that could end a key or a line.
///
/// # Panics
/// Panics if one does not.
pub fn identifier(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    macro_rules! check {
        ($($kind:ty),+) => {$(
            if let Ok(name) = text.parse::<$kind>() {
                let written = name.to_string();
                assert_eq!(written.parse::<$kind>().ok(), Some(name));
                let plain = |byte: u8| byte.is_ascii_graphic() && !b"{}*?[]\\'\"".contains(&byte);
                assert!(written.bytes().all(plain), "{written:?}");
            }
        )+};
    }
    check!(JobId, Namespace, Tenant, Tag, Class, ImageName, UniqueKey);
}
