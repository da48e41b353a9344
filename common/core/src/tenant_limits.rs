//! The limits of a tenant, which an operator sets: weight, maxima and the pause flag.
//!
//! No setting may be zero: pause a tenant to stop its jobs, and remove a limit to have none.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::units::ByteCount;

/// A value that is not valid for a tenant's setting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?} is not {wanted}")]
pub struct TenantLimitError {
    /// The name of the setting.
    pub what: &'static str,
    /// The value, cut to a bounded length.
    pub value: String,
    /// The values that are allowed.
    pub wanted: &'static str,
}

macro_rules! setting {
    (
        $(#[$doc:meta])*
        $name:ident($inner:ty), $what:literal, $least:literal to $most:literal, $wanted:literal
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize)]
        #[serde(transparent)]
        pub struct $name($inner);

        impl $name {
            /// Returns the number.
            #[must_use]
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl FromStr for $name {
            type Err = TenantLimitError;

            fn from_str(text: &str) -> Result<Self, TenantLimitError> {
                text.parse::<$inner>()
                    .ok()
                    .filter(|number| ($least..=$most).contains(number))
                    .map(Self)
                    .ok_or_else(|| TenantLimitError {
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
    /// A tenant's share relative to other tenants. Default 1.
    Weight(f64), "weight", 0.001 to 1000.0, "a number from 0.001 to 1000"
);
setting!(
    /// Maximum number of a tenant's jobs that run at once.
    MaxRunning(u32), "max-running", 1 to 1_000_000, "a whole number from 1 to 1000000"
);
setting!(
    /// Average number of a tenant's jobs that may start in a second.
    StartRate(f64), "rate", 0.001 to 1_000_000.0, "a number from 0.001 to 1000000"
);
setting!(
    /// Number of a tenant's jobs that may start at once after an idle time, under its rate.
    /// Default: the number that its rate allows in one second.
    Burst(u32), "burst", 1 to 1_000_000, "a whole number from 1 to 1000000"
);
setting!(
    /// Maximum number of a tenant's jobs that wait for a worker. Further jobs are rejected.
    MaxQueued(u64), "max-queued", 1 to 1_000_000_000, "a whole number from 1 to 1000000000"
);

/// Maximum number of bytes of large results that are retained for a tenant. Beyond it, the oldest
/// results lose their output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct MaxRetained(ByteCount);

impl MaxRetained {
    /// Smallest value: one result under the default limits fits.
    const MIN: ByteCount = ByteCount::mib(16);

    /// Returns the number of bytes.
    #[must_use]
    pub const fn get(self) -> ByteCount {
        self.0
    }
}

impl FromStr for MaxRetained {
    type Err = TenantLimitError;

    fn from_str(text: &str) -> Result<Self, TenantLimitError> {
        text.parse::<ByteCount>()
            .ok()
            .filter(|bytes| *bytes >= Self::MIN)
            .map(Self)
            .ok_or_else(|| TenantLimitError {
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

/// The settings of a tenant. A limit that is not set does not apply.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct TenantLimits {
    /// Share relative to other tenants.
    pub weight: Option<Weight>,
    /// Maximum number of jobs that run at once.
    pub max_running: Option<MaxRunning>,
    /// Average number of jobs that may start in a second.
    pub rate: Option<StartRate>,
    /// Number of jobs that may start at once under that rate.
    pub burst: Option<Burst>,
    /// Maximum number of jobs that wait.
    pub max_queued: Option<MaxQueued>,
    /// Maximum number of bytes of large results that are retained.
    pub max_retained: Option<MaxRetained>,
    /// The pause flag: if set, no job of the tenant starts.
    pub paused: bool,
}

/// A change of one setting.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Change<T> {
    /// Leave the setting as it is.
    #[default]
    Keep,
    /// Set it to this value.
    Set(T),
    /// Remove the setting.
    Remove,
}

impl<T: FromStr<Err = TenantLimitError>> FromStr for Change<T> {
    type Err = TenantLimitError;

    /// Parses `none` as [`Change::Remove`], and any other text as the new value.
    fn from_str(text: &str) -> Result<Self, TenantLimitError> {
        match text {
            "none" => Ok(Self::Remove),
            value => value.parse().map(Self::Set),
        }
    }
}

/// Changes to a tenant's settings.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct TenantChange {
    /// Share relative to other tenants.
    pub weight: Change<Weight>,
    /// Maximum number of jobs that run at once.
    pub max_running: Change<MaxRunning>,
    /// Average number of jobs that may start in a second.
    pub rate: Change<StartRate>,
    /// Number of jobs that may start at once under that rate.
    pub burst: Change<Burst>,
    /// Maximum number of jobs that wait.
    pub max_queued: Change<MaxQueued>,
    /// Maximum number of bytes of large results that are retained.
    pub max_retained: Change<MaxRetained>,
    /// The pause flag: if set, no job of the tenant starts.
    pub paused: Change<()>,
}

impl TenantChange {
    /// Removes every setting.
    pub const REMOVE_ALL: Self = Self {
        weight: Change::Remove,
        max_running: Change::Remove,
        rate: Change::Remove,
        burst: Change::Remove,
        max_queued: Change::Remove,
        max_retained: Change::Remove,
        paused: Change::Remove,
    };

    /// Returns the fields of the tenant's hash that change, and their values. A field with an empty
    /// value is removed.
    pub fn fields(&self) -> Vec<(&'static str, String)> {
        fn value<T>(change: Change<T>, text: impl FnOnce(T) -> String) -> Option<String> {
            match change {
                Change::Keep => None,
                Change::Set(value) => Some(text(value)),
                Change::Remove => Some(String::new()),
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
        assert_eq!("none".parse::<Change<Burst>>(), Ok(Change::Remove));
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
