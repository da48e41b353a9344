//! Durations: `500ms`, `30s`, `4h05m`.

use sandhog_core::units::{Millis, UnixMillis};

use super::thousandths::parse_thousandths;

/// Parses a duration: a number with the unit `ms`, `s`, `m`, `h` or `d`. A number without a unit is
/// in seconds.
///
/// # Errors
/// A message with the expected form.
pub(crate) fn parse_duration(text: &str) -> Result<Millis, String> {
    const WANT: &str = "expected a duration such as 500ms, 30s, 5m, 2h or 1d";
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text.strip_prefix(number).unwrap_or_default() {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _unknown => return Err(WANT.to_owned()),
    };
    parse_thousandths(number)
        .and_then(|thousandths| thousandths.checked_mul(unit))
        .map(|thousandths| Millis(thousandths / 1000))
        .ok_or_else(|| WANT.to_owned())
}

/// Parses a duration of at least one millisecond.
///
/// # Errors
/// A message with the expected form.
pub(crate) fn parse_positive_duration(text: &str) -> Result<Millis, String> {
    match parse_duration(text)? {
        Millis(0) => Err("expected at least 1ms".to_owned()),
        span => Ok(span),
    }
}

/// Parses a refresh interval, from 100 milliseconds to one hour.
///
/// # Errors
/// A message with the expected form.
pub(crate) fn parse_interval(text: &str) -> Result<Millis, String> {
    parse_duration(text).and_then(|span| {
        if (100..=3_600_000).contains(&span.0) {
            Ok(span)
        } else {
            Err("expected 100ms to 1h".to_owned())
        }
    })
}

/// Formats a duration in its two largest units: `850ms`, `12s`, `3m12s`, `4h05m`, `2d03h`.
#[must_use]
pub(crate) fn format_duration(span: Millis) -> String {
    let seconds = span.0 / 1000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    if span.0 < 1000 {
        format!("{}ms", span.0)
    } else if minutes == 0 {
        format!("{seconds}s")
    } else if hours == 0 {
        format!("{minutes}m{:02}s", seconds % 60)
    } else if days == 0 {
        format!("{hours}h{:02}m", minutes % 60)
    } else {
        format!("{days}d{:02}h", hours % 24)
    }
}

/// Formats the distance of a time from now: `3m12s ago`, `in 4h05m`.
#[must_use]
pub(crate) fn format_distance(at: UnixMillis, now: UnixMillis) -> String {
    match now.0.checked_sub(at.0) {
        Some(ago) => format!("{} ago", format_duration(Millis(ago))),
        None => format!("in {}", format_duration(Millis(at.0 - now.0))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_as_typed() {
        for (text, want) in [
            ("500ms", Some(500)),
            ("30s", Some(30_000)),
            ("1.5", Some(1_500)),
            ("2h", Some(7_200_000)),
            ("0.5ms", Some(0)),
            ("", None),
            ("s", None),
            ("-1s", None),
            ("1.s", None),
            ("3 weeks", None),
            ("99999999999999999999d", None),
        ] {
            assert_eq!(parse_duration(text).ok().map(|m| m.0), want, "{text:?}");
        }
        for (ms, want) in [
            (850, "850ms"),
            (12_999, "12s"),
            (192_000, "3m12s"),
            (14_700_000, "4h05m"),
            (183_600_000, "2d03h"),
        ] {
            assert_eq!(format_duration(Millis(ms)), want);
        }
        assert_eq!(parse_positive_duration("1ms"), Ok(Millis(1)));
        assert!(parse_positive_duration("0s").is_err());
    }
}
