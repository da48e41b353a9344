//! Detection of numbers in a payload that decoding would change.
//!
//! A decoded value holds integers of up to 64 bits and finite floats. serde_json turns a longer
//! integer into a float, and a MessagePack NaN becomes null. This module rejects both, so that a
//! program never gets a number other than the one that was sent.

use std::cell::Cell;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use crate::id::clip;

/// A number that a decoded value cannot hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NumberError {
    /// An integer beyond 64 bits.
    #[error(
        "the number {number} is beyond 64 bits (want an integer from -2^63 to 2^64-1; send a \
         longer one as a string)"
    )]
    Integer {
        /// The number as it was written, cut to a bounded length.
        number: String,
    },
    /// A number beyond the range of a float.
    #[error("the number {number} is beyond the range of a 64-bit float (want at most 1.8e308)")]
    Float {
        /// The number as it was written, cut to a bounded length.
        number: String,
    },
    /// A float that is not finite.
    #[error(
        "{number} is not a number that a payload can hold (want a finite number, null or a string)"
    )]
    NotFinite {
        /// `NaN`, `Infinity` or `-Infinity`.
        number: String,
    },
}

/// Scans JSON text, valid or not, for numbers that a decoded value cannot hold.
///
/// # Errors
/// Names the first such number.
pub fn check_json(text: &[u8]) -> Result<(), NumberError> {
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = match byte {
            b'"' => after_string(after),
            b'-' | b'0'..=b'9' | b'N' | b'I' => {
                let (word, after) = word(rest);
                check_word(word)?;
                after
            }
            _ => after,
        };
    }
    Ok(())
}

/// Returns the text after a string whose opening quote has been read.
fn after_string(text: &[u8]) -> &[u8] {
    let mut at = 0;
    loop {
        match text.get(at) {
            Some(b'\\') => at += 2,
            Some(b'"') => return text.get(at + 1..).unwrap_or_default(),
            Some(_) => at += 1,
            None => return &[],
        }
    }
}

/// Splits off a number or a name at the start of the text.
fn word(text: &[u8]) -> (&[u8], &[u8]) {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    let length = text.iter().position(|byte| !is_part(byte));
    text.split_at(length.unwrap_or(text.len()))
}

fn check_word(word: &[u8]) -> Result<(), NumberError> {
    // Fast path: almost all numbers are too short to be out of range.
    if word.len() < 3 || word.iter().all(u8::is_ascii_digit) && word.len() < 19 {
        return Ok(());
    }
    let Ok(text) = std::str::from_utf8(word) else {
        return Ok(());
    };
    let number = || clip(text, 80);
    if matches!(text, "NaN" | "Infinity" | "-Infinity") {
        return Err(NumberError::NotFinite { number: number() });
    }
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        let fits = text.parse::<i64>().is_ok() || text.parse::<u64>().is_ok();
        return if fits {
            Ok(())
        } else {
            Err(NumberError::Integer { number: number() })
        };
    }
    let is_number = digits.starts_with(|first: char| first.is_ascii_digit());
    match text.parse::<f64>() {
        Ok(float) if is_number && float.is_infinite() => {
            Err(NumberError::Float { number: number() })
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Scans one MessagePack value for floats that are not finite. A malformed value passes; its
/// decoder reports it.
///
/// # Errors
/// Names the first such float.
pub(crate) fn check_messagepack(bytes: &[u8], max_depth: usize) -> Result<(), NumberError> {
    let found = Cell::new(None);
    let mut reader = rmp_serde::Deserializer::new(bytes);
    reader.set_max_depth(max_depth);
    drop(reader.deserialize_any(Finite(&found)));
    let Some(float) = found.get() else {
        return Ok(());
    };
    let number = match float {
        float if float.is_nan() => "NaN",
        float if float > 0.0 => "Infinity",
        _ => "-Infinity",
    };
    Err(NumberError::NotFinite {
        number: number.to_owned(),
    })
}

/// A visitor that accepts any value and stops at a float that is not finite.
#[derive(Clone, Copy)]
struct Finite<'a>(&'a Cell<Option<f64>>);

impl<'de> DeserializeSeed<'de> for Finite<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Finite<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("any data")
    }

    fn visit_f64<E: Error>(self, float: f64) -> Result<(), E> {
        if float.is_finite() {
            return Ok(());
        }
        self.0.set(Some(float));
        Err(E::custom("a float that is not finite"))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_bytes<E: Error>(self, _: &[u8]) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        IgnoredAny::deserialize(reader).map(drop)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_entry_seed(self, self)?.is_some() {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_json_would_change_are_named() {
        for (text, want) in [
            (r#"{"n": 18446744073709551615}"#, None),
            (r#"{"n": -9223372036854775808}"#, None),
            (
                r#"{"n": 18446744073709551616}"#,
                Some("18446744073709551616"),
            ),
            (r#"[-9223372036854775809]"#, Some("-9223372036854775809")),
            (
                r#"[1, 1180591620717411303425]"#,
                Some("1180591620717411303425"),
            ),
            (r#"{"n": "1180591620717411303425"}"#, None),
            (r#"{"a \" 99999999999999999999": "\\"}"#, None),
            (r#"[0.12345678901234567890123, 1e20, 1E+308]"#, None),
            (r#"[1e400]"#, Some("1e400")),
            (r#"[-1.5e999]"#, Some("-1.5e999")),
            (r#"{"loss": NaN}"#, Some("NaN")),
            (r#"[Infinity]"#, Some("Infinity")),
            (r#"[-Infinity]"#, Some("-Infinity")),
            (r#"["NaN", "Infinity"]"#, None),
            (r#"[null, true, false, Nothing]"#, None),
            (r#""unended 99999999999999999999"#, None),
            ("", None),
        ] {
            let error = check_json(text.as_bytes()).err().map(|e| e.to_string());
            match (want, error) {
                (None, None) => {}
                (Some(number), Some(error)) => assert!(error.contains(number), "{text}: {error}"),
                (want, error) => panic!("{text}: {error:?}, not {want:?}"),
            }
        }
    }

    #[test]
    fn floats_that_messagepack_has_and_json_has_not_are_named() {
        let check = |value: &[(&str, f64)]| {
            let map: std::collections::BTreeMap<_, _> = value.iter().copied().collect();
            check_messagepack(&rmp_serde::to_vec(&map).unwrap(), 8)
        };
        assert_eq!(check(&[("a", 1.5), ("b", f64::MAX)]), Ok(()));
        for (float, number) in [
            (f64::NAN, "NaN"),
            (f64::INFINITY, "Infinity"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            let want = NumberError::NotFinite {
                number: number.to_owned(),
            };
            assert_eq!(check(&[("a", 1.5), ("b", float)]), Err(want));
        }
        assert_eq!(
            check_messagepack(&[0xc1, 0x91], 8),
            Ok(()),
            "no MessagePack"
        );
    }
}
