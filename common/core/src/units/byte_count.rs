//! Numbers of bytes, and their text form.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, de};

/// A number of bytes. Reads an integer, or a string such as `"64KiB"`, `"256MiB"`, `"1.5GiB"`;
/// writes an integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
#[serde(transparent)]
pub struct ByteCount(pub u64);

impl ByteCount {
    /// `n` kibibytes.
    #[must_use]
    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }

    /// `n` mebibytes.
    #[must_use]
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    /// Returns the count as an index type, saturated.
    #[must_use]
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for ByteCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
            if self.0 >= 1 << shift && self.0.trailing_zeros() >= shift {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{} bytes", self.0)
    }
}

/// Text that is not a byte count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a size (want a number of bytes, or a number with a unit such as 64K, 64M, 1.5G \
     or 1T; M, MB, Mi and MiB are the same, in either case: 1024 times 1024 bytes)"
)]
pub struct ByteCountError(String);

impl FromStr for ByteCount {
    type Err = ByteCountError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_size(text.trim()).ok_or_else(|| ByteCountError(text.to_owned()))
    }
}

/// Parses a number with a unit. A number with decimals needs a unit. Fractions of a byte are
/// dropped.
fn parse_size(text: &str) -> Option<ByteCount> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let unit = text.strip_prefix(number)?.trim().to_ascii_lowercase();
    let shift = match unit.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "ki" | "kib" => 10,
        "m" | "mb" | "mi" | "mib" => 20,
        "g" | "gb" | "gi" | "gib" => 30,
        "t" | "tb" | "ti" | "tib" => 40,
        _ => return None,
    };
    let digits = |part: &str| part.chars().all(|c| c.is_ascii_digit());
    let (whole, decimals) = match number.split_once('.') {
        Some((whole, decimals)) if shift > 0 && !decimals.is_empty() => (whole, decimals),
        Some(_) => return None,
        None => (number, ""),
    };
    if whole.is_empty() || decimals.len() > MAX_DECIMALS || !digits(whole) || !digits(decimals) {
        return None;
    }
    let mut bytes = whole.parse::<u128>().ok()?.checked_mul(1 << shift)?;
    if let Ok(decimals_value) = decimals.parse::<u128>() {
        let scale = 10_u128.checked_pow(u32::try_from(decimals.len()).ok()?)?;
        bytes = bytes.checked_add((decimals_value << shift) / scale)?;
    }
    u64::try_from(bytes).ok().map(ByteCount)
}

/// Maximum number of decimals. More would not change the result.
const MAX_DECIMALS: usize = 9;

impl<'de> Deserialize<'de> for ByteCount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ByteCountVisitor;
        impl de::Visitor<'_> for ByteCountVisitor {
            type Value = ByteCount;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a byte count: an integer, or a string such as \"256MiB\"")
            }

            fn visit_u64<E: de::Error>(self, n: u64) -> Result<ByteCount, E> {
                Ok(ByteCount(n))
            }

            fn visit_i64<E: de::Error>(self, n: i64) -> Result<ByteCount, E> {
                u64::try_from(n)
                    .map(ByteCount)
                    .map_err(|_negative| E::invalid_value(de::Unexpected::Signed(n), &self))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteCount, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(ByteCountVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_counts_read_and_print() {
        for (case, text, want) in [
            ("plain", "1024", Some(1024)),
            ("bytes", "10b", Some(10)),
            ("kibi", "64KiB", Some(64 << 10)),
            ("one letter", "64M", Some(64 << 20)),
            ("one small letter", "64m", Some(64 << 20)),
            ("as Docker writes it", "64MB", Some(64 << 20)),
            ("the same in small letters", "64mb", Some(64 << 20)),
            ("as Kubernetes writes it", "64Mi", Some(64 << 20)),
            ("short and spaced", "2 g", Some(2 << 30)),
            ("tebi", "1TB", Some(1 << 40)),
            ("decimals", "1.5GiB", Some(3 << 29)),
            ("decimals of a byte are dropped", "0.0001k", Some(0)),
            ("decimals without a unit", "1.5", None),
            ("no decimals after the point", "1.GiB", None),
            ("no number before the point", ".5GiB", None),
            ("two points", "1.2.3GiB", None),
            ("overflow", "99999999999GiB", None),
            ("unknown unit", "5XB", None),
            ("negative", "-1", None),
            ("a sign", "+1", None),
            ("only a unit", "MiB", None),
            ("empty", "", None),
        ] {
            assert_eq!(
                text.parse::<ByteCount>().ok().map(|b| b.0),
                want,
                "case {case}"
            );
        }
        let error = "64 boxes".parse::<ByteCount>().unwrap_err().to_string();
        assert!(error.starts_with("\"64 boxes\" is not a size"), "{error}");
        assert_eq!(ByteCount::mib(256).to_string(), "256MiB");
        assert_eq!(ByteCount(1500).to_string(), "1500 bytes");
    }
}
