//! The times of a schedule: a cron expression in a time zone.
//!
//! The five fields of the expression are minute, hour, day of month, month and day of week; a sixth
//! field in front is the second. Names such as `@daily` stand for the usual expressions.
//!
//! If clocks are put forward, an expression with one fixed time of day is due at the first moment
//! after the gap, and any other expression continues after the gap. If clocks are put back, a fixed
//! time is due once, at its first occurrence, and any other expression is due in both hours.
//!
//! Invalid expressions and expressions that are never due are errors. This module has no clock:
//! callers pass the time.

use std::fmt;

use chrono::DateTime;
use chrono_tz::{TZ_VARIANTS, Tz};
use croner::Cron;

use crate::id::clip;
use crate::suggestion::suggestion;
use crate::units::UnixMillis;

/// Maximum length of an expression, in bytes.
const EXPRESSION_LEN_MAX: usize = 256;

/// An expression or a time zone that is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// The expression is invalid.
    #[error("cron expression {expression:?} is not valid: {detail}")]
    Expression {
        /// The expression, cut to a bounded length.
        expression: String,
        /// The fault, as the parser reports it.
        detail: String,
    },
    /// The expression is valid, but no date matches it.
    #[error("cron expression {expression:?} is never due")]
    Never {
        /// The expression.
        expression: String,
    },
    /// The time zone is unknown.
    #[error("time zone {zone:?} is not known")]
    Zone {
        /// The zone, cut to a bounded length.
        zone: String,
        /// The known zone with the most similar name, if there is one.
        meant: Option<&'static str>,
    },
}

impl CronError {
    /// Returns a hint for correcting the input.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Expression { .. } => {
                "want minute, hour, day of month, month and day of week, such as '30 3 * * \
                 MON-FRI' (3:30 on workdays) or '*/15 * * * *', or one of @hourly, @daily, \
                 @weekly, @monthly, @yearly"
                    .to_owned()
            }
            Self::Never { .. } => "check that its months have such a day".to_owned(),
            Self::Zone {
                meant: Some(near), ..
            } => format!("did you mean {near}?"),
            Self::Zone { meant: None, .. } => {
                "want a name of the IANA time zone database, such as Europe/Berlin or UTC"
                    .to_owned()
            }
        }
    }
}

/// A cron expression in a time zone. Its times are whole seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CronSchedule {
    expression: String,
    cron: Cron,
    zone: Tz,
}

impl CronSchedule {
    /// Parses an expression and the name of a zone.
    ///
    /// # Errors
    /// Fails if the expression or the zone is invalid, or the expression is never due.
    pub fn parse(expression: &str, zone: &str) -> Result<Self, CronError> {
        let zone = zone.parse::<Tz>().map_err(|_unknown| CronError::Zone {
            zone: clip(zone, 64),
            meant: suggestion(zone, TZ_VARIANTS.iter().map(|known| known.name())),
        })?;
        let refuse = |detail: String| CronError::Expression {
            expression: clip(expression, 80),
            detail,
        };
        if expression.len() > EXPRESSION_LEN_MAX {
            return Err(refuse(format!("longer than {EXPRESSION_LEN_MAX} bytes")));
        }
        let cron = expression
            .parse::<Cron>()
            .map_err(|error| refuse(plain(&error.to_string())))?;
        let schedule = Self {
            expression: expression.trim().to_owned(),
            cron,
            zone,
        };
        match schedule.next_after(UnixMillis(0)) {
            Some(_) => Ok(schedule),
            None => Err(CronError::Never {
                expression: clip(expression, 80),
            }),
        }
    }

    /// Returns the expression as it was written.
    #[must_use]
    pub fn expression(&self) -> &str {
        &self.expression
    }

    /// Returns the zone's name.
    #[must_use]
    pub fn zone(&self) -> &'static str {
        self.zone.name()
    }

    /// Returns the first time after `moment`; none if there is none.
    #[must_use]
    pub fn next_after(&self, moment: UnixMillis) -> Option<UnixMillis> {
        let from = self.local(moment)?;
        millis(&self.cron.find_next_occurrence(&from, false).ok()?)
    }

    /// Returns the latest times from `first` to `last`, both included: at most `most`, in order.
    #[must_use]
    pub fn between(&self, first: UnixMillis, last: UnixMillis, most: usize) -> Vec<UnixMillis> {
        let mut found = Vec::new();
        let mut at = self.local(last);
        let mut included = true;
        while found.len() < most
            && let Some(from) = at
            && let Ok(before) = self.cron.find_previous_occurrence(&from, included)
            && let Some(due) = millis(&before)
            && due >= first
        {
            found.push(due);
            included = false;
            at = Some(before);
        }
        found.reverse();
        found
    }

    /// Formats a moment in the zone's local time, with the offset from UTC, such as `2026-03-29
    /// 03:00:00 +02:00`.
    #[must_use]
    pub fn format_local(&self, moment: UnixMillis) -> String {
        let local = self.local(moment);
        local.map_or_else(
            || moment.0.to_string(),
            |local| local.format("%Y-%m-%d %H:%M:%S %:z").to_string(),
        )
    }

    /// Converts a moment to the zone's local time, in whole seconds.
    fn local(&self, moment: UnixMillis) -> Option<DateTime<Tz>> {
        let seconds = i64::try_from(moment.0 / 1000).ok()?;
        Some(DateTime::from_timestamp(seconds, 0)?.with_timezone(&self.zone))
    }
}

impl fmt::Display for CronSchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.expression, self.zone)
    }
}

fn millis(moment: &DateTime<Tz>) -> Option<UnixMillis> {
    u64::try_from(moment.timestamp_millis())
        .ok()
        .map(UnixMillis)
}

/// Turns an error message of the cron parser into a fragment of ours: without its prefix, its
/// capital letter and its full stop.
fn plain(message: &str) -> String {
    let text = message
        .trim_start_matches("Invalid pattern: ")
        .trim_start_matches("Component error: ")
        .trim_end_matches('.');
    let mut letters = text.chars();
    letters
        .next()
        .map(|first| first.to_ascii_lowercase())
        .into_iter()
        .chain(letters)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(expression: &str, zone: &str) -> CronSchedule {
        CronSchedule::parse(expression, zone).unwrap()
    }

    fn at(text: &str) -> UnixMillis {
        let moment = DateTime::parse_from_rfc3339(text).unwrap();
        UnixMillis(u64::try_from(moment.timestamp_millis()).unwrap())
    }

    /// Returns the next `count` times after `from`.
    fn next(table: &CronSchedule, from: &str, count: usize) -> Vec<String> {
        let mut moment = at(from);
        let mut times = Vec::new();
        for _ in 0..count {
            moment = table.next_after(moment).unwrap();
            let local = table.local(moment).unwrap();
            times.push(local.format("%m-%dT%H:%M:%S%:z").to_string());
        }
        times
    }

    #[test]
    fn expressions_are_read_in_their_zone() {
        for (case, expression, zone, from, want) in [
            (
                "daily",
                "30 3 * * *",
                "UTC",
                "2026-01-01T03:30:00Z",
                "01-02T03:30:00+00:00",
            ),
            (
                "zone",
                "0 9 * * MON-FRI",
                "America/New_York",
                "2026-01-02T14:00:00Z",
                "01-05T09:00:00-05:00",
            ),
            (
                "seconds",
                "*/20 * * * * *",
                "UTC",
                "2026-01-01T00:00:00.999Z",
                "01-01T00:00:20+00:00",
            ),
            (
                "name",
                "@monthly",
                "UTC",
                "2026-01-01T00:00:00Z",
                "02-01T00:00:00+00:00",
            ),
            (
                "last day",
                "0 0 L * *",
                "UTC",
                "2026-02-01T00:00:00Z",
                "02-28T00:00:00+00:00",
            ),
            (
                "half hours",
                "0 0 * * *",
                "Asia/Kolkata",
                "2026-01-01T00:00:00Z",
                "01-02T00:00:00+05:30",
            ),
        ] {
            assert_eq!(
                next(&schedule(expression, zone), from, 1),
                [want],
                "case {case}"
            );
        }
    }

    #[test]
    fn clocks_put_forward_move_a_fixed_time_and_shorten_a_repeated_one() {
        // Berlin, 2026-03-29: 02:00 becomes 03:00.
        let fixed = schedule("30 2 * * *", "Europe/Berlin");
        assert_eq!(
            next(&fixed, "2026-03-28T00:00:00Z", 3),
            [
                "03-28T02:30:00+01:00",
                "03-29T03:00:00+02:00",
                "03-30T02:30:00+02:00"
            ]
        );
        let repeated = schedule("*/30 * * * *", "Europe/Berlin");
        assert_eq!(
            next(&repeated, "2026-03-29T00:00:00Z", 3),
            [
                "03-29T01:30:00+01:00",
                "03-29T03:00:00+02:00",
                "03-29T03:30:00+02:00"
            ]
        );
    }

    #[test]
    fn clocks_put_back_fire_a_fixed_time_once_and_a_repeated_one_twice() {
        // Berlin, 2026-10-25: 03:00 becomes 02:00.
        let fixed = schedule("30 2 * * *", "Europe/Berlin");
        assert_eq!(
            next(&fixed, "2026-10-24T12:00:00Z", 2),
            ["10-25T02:30:00+02:00", "10-26T02:30:00+01:00"]
        );
        let repeated = schedule("*/30 * * * *", "Europe/Berlin");
        assert_eq!(
            next(&repeated, "2026-10-25T00:00:00Z", 4),
            [
                "10-25T02:30:00+02:00",
                "10-25T02:00:00+01:00",
                "10-25T02:30:00+01:00",
                "10-25T03:00:00+01:00"
            ]
        );
    }

    #[test]
    fn looking_back_finds_what_looking_forward_found() {
        for zone in [
            "UTC",
            "Europe/Berlin",
            "America/New_York",
            "Australia/Lord_Howe",
        ] {
            for expression in [
                "30 2 * * *",
                "*/15 * * * *",
                "0 2,3 * * *",
                "15 1 * * SUN",
                "0 0 1 * *",
            ] {
                let table = schedule(expression, zone);
                let (first, last) = (at("2026-01-01T00:00:00Z"), at("2027-01-01T00:00:00Z"));
                let mut forward = Vec::new();
                let mut moment = UnixMillis(first.0 - 1);
                while let Some(due) = table.next_after(moment).filter(|due| *due <= last) {
                    forward.push(due);
                    moment = due;
                }
                let back = table.between(first, last, usize::MAX);
                assert!(back == forward, "{table}");
                let some = table.between(first, last, 3);
                assert_eq!(some, forward[forward.len() - 3..], "{table}");
            }
        }
    }

    #[test]
    fn invalid_expressions_are_refused_with_a_hint() {
        for (case, expression, zone, want) in [
            ("words", "every day", "UTC", "\"every day\""),
            ("too few", "* * *", "UTC", "\"* * *\""),
            ("range", "61 * * * *", "UTC", "\"61 * * * *\""),
            ("never", "0 0 30 2 *", "UTC", "never due"),
            ("zone", "@daily", "Europe/Berln", "\"Europe/Berln\""),
            ("reboot", "@reboot", "UTC", "\"@reboot\""),
            ("empty", "", "UTC", "\"\""),
        ] {
            let error = CronSchedule::parse(expression, zone).expect_err(case);
            assert!(error.to_string().contains(want), "case {case}: {error}");
            assert!(!error.hint().is_empty(), "case {case}");
        }
        let error = CronSchedule::parse("@daily", "Europe/Berln").unwrap_err();
        assert_eq!(error.hint(), "did you mean Europe/Berlin?");
        let long = "1,".repeat(500);
        assert!(CronSchedule::parse(&long, "UTC").is_err());
    }
}
