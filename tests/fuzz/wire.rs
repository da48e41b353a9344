//! Payloads that submitters send and results that they read, in both encodings.

use sandhog_common::job::Job;
use sandhog_common::outcome::{JobResult, Outcome, ValueDropped};
use sandhog_common::units::ByteCount;
use sandhog_common::wire::{Encoding, decode, encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::feed;

/// Size cap for decoding. Damage can make inputs longer than that.
const CAP: ByteCount = ByteCount(4096);

/// A value that decodes must be within the cap, and must be the same after it is encoded again in
/// either encoding.
fn read<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    let Ok((value, _encoding)) = decode::<T>(bytes, CAP) else {
        return;
    };
    assert!(bytes.len() as u64 <= CAP.0, "more than the cap was read");
    for encoding in [Encoding::Json, Encoding::MessagePack] {
        let again = encode(&value, encoding);
        let wide = ByteCount(CAP.0 * 64);
        match decode::<T>(&again, wide) {
            Ok((read, said)) => {
                assert_eq!(read, value, "{encoding:?}");
                assert_eq!(said, encoding);
            }
            Err(error) => panic!("a decoded value fails to decode after encoding: {error}"),
        }
    }
}

fn both<T: Serialize>(values: &[T]) -> Vec<Vec<u8>> {
    [Encoding::Json, Encoding::MessagePack]
        .iter()
        .flat_map(|encoding| values.iter().map(|value| encode(value, *encoding)))
        .collect()
}

#[test]
fn payloads() {
    let image = "python".parse().expect("a name");
    let mut job = Job::code(image, "print(1)");
    job.args = vec!["a".to_owned(), "é\u{0}".to_owned()];
    job.stdin.0 = vec![0xff, 0xfe];
    job.env.insert("A".to_owned(), "b".to_owned());
    job.input = json!({"a": [1, -2, 0.5, null, true, "x"], "b": {}});
    job.expect_value = true;
    job.file = Some("a.py".to_owned());
    feed("payloads", &both(&[job]), read::<Job>);
}

#[test]
fn results() {
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
    feed("results", &both(&[result]), read::<JobResult>);
}

#[test]
fn names_are_what_they_say() {
    use sandhog_common::class::Class;
    use sandhog_common::id::{ImageName, JobId, Namespace, Tag, Tenant, UniqueKey};

    let seeds: Vec<_> = [
        "python",
        "a.b-c_d",
        "1-1",
        "cpu+gpu",
        "x:y",
        "sandhog/a:latest",
    ]
    .map(|name| name.as_bytes().to_vec())
    .to_vec();
    feed("names", &seeds, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        /// A name that is accepted must be written as it was read, and must contain nothing that
        /// could end a key or a line.
        macro_rules! kept {
            ($($kind:ty),+) => {$(
                if let Ok(name) = text.parse::<$kind>() {
                    let written = name.to_string();
                    assert_eq!(written.parse::<$kind>().ok(), Some(name));
                    let plain = |byte: u8| byte.is_ascii_graphic() && !b"{}*?[]\\'\"".contains(&byte);
                    assert!(written.bytes().all(plain), "{written:?}");
                }
            )+};
        }
        kept!(JobId, Namespace, Tenant, Tag, Class, ImageName, UniqueKey);
    });
}
