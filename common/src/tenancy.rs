//! What an operator may set for a tenant: its weight, its limits, and whether it is paused.
//!
//! It refuses zero for any of them: a tenant that shall do nothing is paused, and a limit that shall not be is lifted.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::units::ByteCount;

/// A value that cannot be one of a tenant's settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?} is not {wanted}")]
pub struct TenancyError {
    /// Which setting.
    pub what: &'static str,
    /// The value, shortened.
    pub value: String,
    /// What it may be.
    pub wanted: &'static str,
}

macro_rules! setting {
    ($(#[$doc:meta])* $name:ident($inner:ty), $what:literal, $least:literal to $most:literal, $wanted:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize)]
        #[serde(transparent)]
        pub struct $name($inner);

        impl $name {
            /// The number.
            #[must_use]
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl FromStr for $name {
            type Err = TenancyError;

            fn from_str(text: &str) -> Result<Self, TenancyError> {
                text.parse::<$inner>()
                    .ok()
                    .filter(|number| ($least..=$most).contains(number))
                    .map(Self)
                    .ok_or_else(|| TenancyError {
                        what: $what,
                        value: crate::id::clip(text, 40),
                        wanted: $wanted,
                    })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

setting!(
    /// A tenant's share beside the others'; 1 when not set.
    Weight(f64), "weight", 0.001 to 1000.0, "a number from 0.001 to 1000"
);
setting!(
    /// How many of a tenant's jobs may run at once.
    MaxRunning(u32), "max-running", 1 to 1_000_000, "a whole number from 1 to 1000000"
);
setting!(
    /// How many of a tenant's jobs may start in a second, on average.
    StartRate(f64), "rate", 0.001 to 1_000_000.0, "a number from 0.001 to 1000000"
);
setting!(
    /// How many of a tenant's jobs may start at once after a rest, under its rate; one second's worth when not set.
    Burst(u32), "burst", 1 to 1_000_000, "a whole number from 1 to 1000000"
);
setting!(
    /// How many of a tenant's jobs may wait for a worker; what comes beyond that is refused.
    MaxQueued(u64), "max-queued", 1 to 1_000_000_000, "a whole number from 1 to 1000000000"
);

/// Bytes of large results that are kept for a tenant; the oldest lose their output when more come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct MaxRetained(ByteCount);

impl MaxRetained {
    /// The least: one result of the default limits fits.
    const LEAST: ByteCount = ByteCount::mib(16);

    /// The bytes.
    #[must_use]
    pub const fn get(self) -> ByteCount {
        self.0
    }
}

impl FromStr for MaxRetained {
    type Err = TenancyError;

    fn from_str(text: &str) -> Result<Self, TenancyError> {
        text.parse::<ByteCount>()
            .ok()
            .filter(|bytes| *bytes >= Self::LEAST)
            .map(Self)
            .ok_or_else(|| TenancyError {
                what: "max-retained",
                value: crate::id::clip(text, 40),
                wanted: "a number of bytes, such as 256MiB, of at least 16MiB",
            })
    }
}

impl fmt::Display for MaxRetained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What is set for a tenant; what is not, is not limited.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct TenantSettings {
    /// Its share.
    pub weight: Option<Weight>,
    /// How many of its jobs may run at once.
    pub max_running: Option<MaxRunning>,
    /// How many may start in a second.
    pub rate: Option<StartRate>,
    /// How many may start at once under that rate.
    pub burst: Option<Burst>,
    /// How many may wait.
    pub max_queued: Option<MaxQueued>,
    /// Bytes of large results that are kept.
    pub max_retained: Option<MaxRetained>,
    /// Whether none may start.
    pub paused: bool,
}

/// What becomes of one setting.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Change<T> {
    /// It stays as it is.
    #[default]
    Keep,
    /// It is this from now on.
    To(T),
    /// It is not set any more.
    Lift,
}

impl<T: FromStr<Err = TenancyError>> FromStr for Change<T> {
    type Err = TenancyError;

    /// `none` lifts; everything else is the value.
    fn from_str(text: &str) -> Result<Self, TenancyError> {
        match text {
            "none" => Ok(Self::Lift),
            value => value.parse().map(Self::To),
        }
    }
}

/// Changes to a tenant's settings.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct TenantChange {
    /// Its share.
    pub weight: Change<Weight>,
    /// How many of its jobs may run at once.
    pub max_running: Change<MaxRunning>,
    /// How many may start in a second.
    pub rate: Change<StartRate>,
    /// How many may start at once under that rate.
    pub burst: Change<Burst>,
    /// How many may wait.
    pub max_queued: Change<MaxQueued>,
    /// Bytes of large results that are kept.
    pub max_retained: Change<MaxRetained>,
    /// Whether none may start.
    pub paused: Change<()>,
}

impl TenantChange {
    /// Lifts everything.
    pub const NOTHING_SET: Self = Self {
        weight: Change::Lift,
        max_running: Change::Lift,
        rate: Change::Lift,
        burst: Change::Lift,
        max_queued: Change::Lift,
        max_retained: Change::Lift,
        paused: Change::Lift,
    };

    /// The fields of the tenant's hash that change, and their values; an empty one is removed.
    pub(crate) fn fields(&self) -> Vec<(&'static str, String)> {
        fn value<T>(change: Change<T>, text: impl FnOnce(T) -> String) -> Option<String> {
            match change {
                Change::Keep => None,
                Change::To(value) => Some(text(value)),
                Change::Lift => Some(String::new()),
            }
        }
        [
            ("weight", value(self.weight, |v| v.to_string())),
            ("max_running", value(self.max_running, |v| v.to_string())),
            ("rate_per_s", value(self.rate, |v| v.to_string())),
            ("burst", value(self.burst, |v| v.to_string())),
            ("max_queued", value(self.max_queued, |v| v.to_string())),
            (
                "max_retained",
                value(self.max_retained, |v| v.get().0.to_string()),
            ),
            ("paused", value(self.paused, |()| "1".to_owned())),
        ]
        .into_iter()
        .filter_map(|(field, value)| Some((field, value?)))
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_hold_what_they_may_and_refuse_the_rest_by_name() {
        assert_eq!("3".parse::<Weight>().unwrap().get(), 3.0);
        assert_eq!("none".parse::<Change<Burst>>(), Ok(Change::Lift));
        for bad in ["0", "-1", "", "x", "NaN", "inf", "1e9", "1001"] {
            let error = bad.parse::<Weight>().unwrap_err();
            assert_eq!(error.value, bad, "case {bad:?}");
        }
        let error = "0".parse::<Change<MaxRunning>>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "max-running \"0\" is not a whole number from 1 to 1000000"
        );
        assert!("1.5".parse::<MaxQueued>().is_err());
        assert!("0.0001".parse::<StartRate>().is_err());
        assert_eq!(
            "256MiB".parse::<MaxRetained>().unwrap().get(),
            ByteCount::mib(256)
        );
        assert_eq!(
            "256".parse::<MaxRetained>().unwrap_err().to_string(),
            "max-retained \"256\" is not a number of bytes, such as 256MiB, of at least 16MiB"
        );
    }
}
