//! Parsing and formatting of quantities for people: `30s`, `1.5` cores, `64MiB`.

use sandhog_common::units::{ByteCount, CpuMillis, Millis, UnixMillis};

/// Parses a duration: a number with the unit `ms`, `s`, `m`, `h` or `d`. A number without a unit is
/// in seconds.
///
/// # Errors
/// A message with the expected form.
pub(crate) fn span(text: &str) -> Result<Millis, String> {
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
    thousandths(number)
        .and_then(|thousandths| thousandths.checked_mul(unit))
        .map(|thousandths| Millis(thousandths / 1000))
        .ok_or_else(|| WANT.to_owned())
}

/// Parses a duration of at least one millisecond.
///
/// # Errors
/// A message with the expected form.
pub(crate) fn positive_span(text: &str) -> Result<Millis, String> {
    match span(text)? {
        Millis(0) => Err("expected at least 1ms".to_owned()),
        span => Ok(span),
    }
}

/// Returns a parser for sizes of at least `least`.
pub(crate) fn at_least(
    least: ByteCount,
) -> impl Fn(&str) -> Result<ByteCount, String> + Clone + Send + Sync + 'static {
    move |text| {
        let size: ByteCount = text.parse().map_err(|error| format!("{error}"))?;
        if size >= least {
            return Ok(size);
        }
        let bare = text.chars().all(|c| c.is_ascii_digit()) && size.0 > 0;
        Err(if bare {
            format!(
                "expected at least {least}; a number without a unit is in bytes: write {text}MiB \
                 for mebibytes"
            )
        } else {
            format!("expected at least {least}")
        })
    }
}

/// Parses a refresh interval, from 100 milliseconds to one hour.
///
/// # Errors
/// A message with the expected form.
pub(crate) fn interval(text: &str) -> Result<Millis, String> {
    span(text).and_then(|span| {
        if (100..=3_600_000).contains(&span.0) {
            Ok(span)
        } else {
            Err("expected 100ms to 1h".to_owned())
        }
    })
}

/// Formats a duration in its two largest units: `850ms`, `12s`, `3m12s`, `4h05m`, `2d03h`.
#[must_use]
pub(crate) fn short(span: Millis) -> String {
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
pub(crate) fn distance(at: UnixMillis, now: UnixMillis) -> String {
    match now.0.checked_sub(at.0) {
        Some(ago) => format!("{} ago", short(Millis(ago))),
        None => format!("in {}", short(Millis(at.0 - now.0))),
    }
}

/// Formats a number of bytes in the largest unit of which it has at least one: `514 B`, `12.3 KiB`,
/// `1.2 MiB`, `3.0 GiB`.
#[must_use]
pub(crate) fn size(bytes: u64) -> String {
    for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes >> shift > 0 {
            let tenths = ((bytes & ((1 << shift) - 1)) * 10) >> shift;
            return format!("{}.{tenths} {unit}", bytes >> shift);
        }
    }
    format!("{bytes} B")
}

/// Parses a number of cores, such as `0.5` or `2`.
///
/// # Errors
/// A message with the expected form.
pub(crate) fn cores(text: &str) -> Result<CpuMillis, String> {
    thousandths(text)
        .map(CpuMillis)
        .ok_or_else(|| "expected a number of cores such as 0.5 or 2".to_owned())
}

/// Returns a parser for numbers of cores of at least `least`.
pub(crate) fn cores_at_least(
    least: CpuMillis,
) -> impl Fn(&str) -> Result<CpuMillis, String> + Clone + Send + Sync + 'static {
    move |text| {
        let share = cores(text)?;
        if share >= least {
            return Ok(share);
        }
        let (whole, decimals) = (least.0 / 1000, least.0 % 1000);
        Err(format!("expected at least {whole}.{decimals:03} cores"))
    }
}

/// Parses a decimal number with at most three decimals and returns it times 1,000.
fn thousandths(text: &str) -> Option<u64> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit());
    if !digits(whole) || !digits(decimals) || decimals.len() > 3 {
        return None;
    }
    let whole: u64 = whole.parse().ok()?;
    let decimals: u64 = format!("{decimals:0<3}").parse().ok()?;
    whole.checked_mul(1000)?.checked_add(decimals)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_cores_read_as_typed() {
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
            assert_eq!(span(text).ok().map(|m| m.0), want, "{text:?}");
        }
        for (ms, want) in [
            (850, "850ms"),
            (12_999, "12s"),
            (192_000, "3m12s"),
            (14_700_000, "4h05m"),
            (183_600_000, "2d03h"),
        ] {
            assert_eq!(short(Millis(ms)), want);
        }
        assert_eq!(cores("0.25"), Ok(CpuMillis(250)));
        assert!(cores("1.2345").is_err());
        let least = cores_at_least(CpuMillis(10));
        assert_eq!(least("0.01"), Ok(CpuMillis(10)));
        assert_eq!(
            least("0.009"),
            Err("expected at least 0.010 cores".to_owned())
        );
        assert_eq!(positive_span("1ms"), Ok(Millis(1)));
        assert!(positive_span("0s").is_err());
    }

    #[test]
    fn sizes_below_their_floor_are_refused_with_what_was_meant() {
        let size = at_least(ByteCount::mib(4));
        for (text, want) in [
            ("64mb", Ok(ByteCount::mib(64))),
            ("4194304", Ok(ByteCount::mib(4))),
            (
                "64",
                Err(
                    "expected at least 4MiB; a number without a unit is in bytes: write 64MiB \
                     for mebibytes",
                ),
            ),
            ("64k", Err("expected at least 4MiB")),
            ("0", Err("expected at least 4MiB")),
        ] {
            assert_eq!(size(text), want.map_err(str::to_owned), "{text:?}");
        }
        let unknown = size("64 boxes").unwrap_err();
        assert!(
            unknown.contains("64 boxes") && unknown.contains("MiB"),
            "{unknown}"
        );
    }
}
