//! Sizes: `64MiB`.

use sandhog_core::units::ByteCount;

/// Returns a parser for sizes of at least `least`.
pub(crate) fn parse_size_at_least(
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

/// Formats a number of bytes in the largest unit of which it has at least one: `514 B`, `12.3 KiB`,
/// `1.2 MiB`, `3.0 GiB`.
#[must_use]
pub(crate) fn format_size(bytes: u64) -> String {
    for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes >> shift > 0 {
            let tenths = ((bytes & ((1 << shift) - 1)) * 10) >> shift;
            return format!("{}.{tenths} {unit}", bytes >> shift);
        }
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_below_their_floor_are_refused_with_what_was_meant() {
        let size = parse_size_at_least(ByteCount::mib(4));
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
