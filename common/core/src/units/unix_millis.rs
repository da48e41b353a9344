//! Moments.

use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// Returns the time in ISO 8601, in UTC and whole seconds: `2026-11-30T14:20:28Z`.
    #[cfg(feature = "cron")]
    #[must_use]
    pub fn iso8601(self) -> String {
        i64::try_from(self.0)
            .ok()
            .and_then(chrono::DateTime::from_timestamp_millis)
            .map_or_else(
                || format!("{} ms", self.0),
                |moment| moment.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
            )
    }
}

#[cfg(all(test, feature = "cron"))]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_for_people() {
        for (millis, want) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_796_040_190_451, "2026-11-30T12:03:10Z"),
            (u64::MAX, "18446744073709551615 ms"),
        ] {
            assert_eq!(UnixMillis(millis).iso8601(), want);
        }
    }
}
