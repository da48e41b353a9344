//! The caps of a job, and their resolution from the job's request, the image's defaults and the
//! image's ceiling.
//!
//! Every cap has a unit in its type, a default, a floor and a ceiling. The floor is the least under
//! which a cell can be created and a program started in it. Zero never means "unlimited"; it is an
//! error.

use serde::{Deserialize, Serialize};

use crate::units::{ByteCount, CpuMillis, Millis};

/// Default stack of a program, if its memory is not less. Each thread reserves this much address
/// space.
const DEFAULT_STACK: ByteCount = ByteCount::mib(1024);

macro_rules! caps {
    ($( $(#[$doc:meta])* $field:ident: $type:ty = $default:expr, $least:expr => $most:expr; )*) => {
        /// The caps of one attempt, all resolved.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        pub struct Limits {
            $( $(#[$doc])* pub $field: $type, )*
        }

        /// The caps that a job or an image sets. For a cap that is not set, the next level applies:
        /// the image's default, then the global default.
        #[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
        pub struct LimitOverrides {
            $(
                $(#[$doc])*
                #[serde(default, skip_serializing_if = "Option::is_none")]
                pub $field: Option<$type>,
            )*
        }

        impl Limits {
            /// Returns, for each cap, the larger of the two values.
            #[must_use]
            pub fn at_least(&self, other: &Self) -> Self {
                Self { $( $field: self.$field.max(other.$field), )* }
            }

            /// Returns the maximum number of bytes that a result may return under these caps.
            #[must_use]
            pub const fn result_bytes(&self) -> ByteCount {
                let streams = self.output.0.saturating_mul(2);
                let rest = self.fetch_bytes.0.saturating_add(self.display_total.0);
                ByteCount(streams.saturating_add(rest))
            }

            /// The caps of a job that sets none, in an image that sets none.
            pub const DEFAULT: Self = Self { $( $field: $default, )* };

            /// The highest caps that a job may request, in an image that sets no ceiling.
            pub const CEILING: Self = Self { $( $field: $most, )* };

            /// The lowest caps that a job or an image may set.
            pub const FLOOR: Self = Self { $( $field: $least, )* };

            /// Resolves a job's caps: its own value, else the image's default, else the global
            /// default; never above the image's ceiling.
            ///
            /// # Errors
            /// Names the first requested cap that is below the floor or above the ceiling, with
            /// both values. A default above the ceiling is lowered to the ceiling and is not an
            /// error, because the job did not request it.
            pub fn resolve(
                job: &LimitOverrides,
                defaults: &LimitOverrides,
                ceiling: &LimitOverrides,
            ) -> Result<Self, LimitError> {
                Ok(Self {
                    $( $field: {
                        let most = ceiling.$field.unwrap_or(Self::CEILING.$field);
                        match job.$field {
                            None => defaults.$field.unwrap_or(Self::DEFAULT.$field).min(most),
                            Some(requested) if requested < Self::FLOOR.$field => {
                                return Err(too_low(
                                    stringify!($field),
                                    requested,
                                    Self::FLOOR.$field,
                                    most,
                                ));
                            }
                            Some(requested) if requested > most => {
                                return Err(LimitError::TooHigh {
                                    cap: stringify!($field),
                                    value: requested.to_string(),
                                    most: most.to_string(),
                                });
                            }
                            Some(requested) => requested,
                        }
                    }, )*
                })
            }
        }

        impl LimitOverrides {
            /// Compares every cap that is set with the floor.
            ///
            /// # Errors
            /// Names the first cap below it, with both values.
            pub fn check(&self) -> Result<(), LimitError> {
                $( if let Some(requested) = self.$field
                    && requested < Limits::FLOOR.$field
                {
                    let (least, most) = (Limits::FLOOR.$field, Limits::CEILING.$field);
                    return Err(too_low(stringify!($field), requested, least, most));
                } )*
                Ok(())
            }
        }
    };
}

/// The type of a cap's value.
trait Quantity: Copy + Ord + std::fmt::Display {
    /// Returns the value that was suggest intended in place of one far too small, if there is one.
    fn suggest(self) -> Option<Self>;
}

impl Quantity for Millis {
    fn suggest(self) -> Option<Self> {
        None
    }
}

impl Quantity for CpuMillis {
    fn suggest(self) -> Option<Self> {
        None
    }
}

impl Quantity for Count {
    fn suggest(self) -> Option<Self> {
        None
    }
}

impl Quantity for ByteCount {
    /// A small number without a unit, such as 64, was suggest intended as mebibytes.
    fn suggest(self) -> Option<Self> {
        (self.0 > 0).then(|| Self(self.0.saturating_mul(1 << 20)))
    }
}

fn too_low<Q: Quantity>(cap: &'static str, requested: Q, least: Q, most: Q) -> LimitError {
    let meant = requested.suggest();
    let meant = meant.filter(|meant| (least..=most).contains(meant));
    LimitError::TooLow {
        cap,
        value: requested.to_string(),
        least: least.to_string(),
        hint: meant.map_or(String::new(), |meant| {
            format!("; a number without a unit is bytes, so write \"{meant}\" for {meant}")
        }),
    }
}

/// A plain count of things: processes, inodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Count(pub u32);

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

caps! {
    /// Wall-clock time from the program's start to its end, in milliseconds.
    timeout_ms: Millis = Millis(30_000), Millis(1) => Millis(3_600_000);
    /// CPU time of the whole process tree, in milliseconds.
    cpu_ms: Millis = Millis(3_600_000), Millis(1) => Millis(3_600_000);
    /// CPU share, in thousandths of a core.
    cpu_millis: CpuMillis = CpuMillis(1000), CpuMillis(10) => CpuMillis(64_000);
    /// Memory of the whole process tree, its scratch files and standard input included; there is no
    /// swap. Bytes.
    memory: ByteCount = ByteCount::mib(512), ByteCount::mib(4) => ByteCount::mib(64 << 10);
    /// Stack size limit at the program's start, never more than its memory. A program may raise it
    /// itself. Bytes.
    stack: ByteCount = DEFAULT_STACK, ByteCount::kib(512) => ByteCount::mib(64 << 10);
    /// Processes and threads that exist at once.
    pids: Count = Count(64), Count(1) => Count(4096);
    /// Scratch files in each of `/tmp`, the working directory and `/dev/shm`. Bytes.
    scratch: ByteCount = ByteCount::mib(64), ByteCount::kib(4) => ByteCount::mib(16 << 10);
    /// Files and directories in each scratch space. A cell with a million of them takes seconds to
    /// remove.
    scratch_inodes: Count = Count(16_384), Count(16) => Count(1 << 18);
    /// Bytes kept of standard output, and of standard error. The rest is read and discarded, and
    /// the stream is marked `truncated`.
    output: ByteCount = ByteCount::mib(1), ByteCount(1) => ByteCount::mib(16);
    /// Number of files returned by `fetch`.
    fetch_files: Count = Count(64), Count(1) => Count(1024);
    /// Size of all files returned by `fetch` together. Bytes.
    fetch_bytes: ByteCount = ByteCount::mib(4), ByteCount(1) => ByteCount::mib(16);
    /// Number of displays kept; later ones are dropped.
    displays: Count = Count(32), Count(1) => Count(1024);
    /// Size of one display in all its forms together; a larger one is dropped. Bytes.
    display_bytes: ByteCount = ByteCount::mib(2), ByteCount(1) => ByteCount::mib(8);
    /// Size of all kept displays together; a display that does not fit is dropped. Bytes.
    display_total: ByteCount = ByteCount::mib(4), ByteCount(1) => ByteCount::mib(16);
    /// Bytes that a program may write to both streams before it is stopped with the outcome
    /// `output_limit`.
    output_total: ByteCount = ByteCount::mib(64), ByteCount(1) => ByteCount::mib(16 << 10);
}

/// A cap that cannot be granted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// The cap is below the floor.
    #[error("limit {cap} is {value} (want at least {least}; leave it out for the default{hint})")]
    TooLow {
        /// The cap's field name.
        cap: &'static str,
        /// The value that was asked for.
        value: String,
        /// The floor.
        least: String,
        /// A hint about the value that was suggest intended; empty if there is none.
        hint: String,
    },
    /// The cap is above the image's ceiling.
    #[error("limit {cap} {value} is above the image's ceiling of {most}")]
    TooHigh {
        /// The cap's field name.
        cap: &'static str,
        /// The value that was requested.
        value: String,
        /// The ceiling.
        most: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_job_wins_over_the_image_up_to_the_ceiling() {
        let image = LimitOverrides {
            timeout_ms: Some(Millis(5000)),
            ..LimitOverrides::default()
        };
        let ceiling = LimitOverrides {
            memory: Some(ByteCount::mib(256)),
            ..LimitOverrides::default()
        };
        let none = LimitOverrides::default();
        let limits = Limits::resolve(&none, &image, &ceiling).unwrap();
        assert_eq!(limits.timeout_ms, Millis(5000), "the image's default");
        assert_eq!(
            limits.memory,
            ByteCount::mib(256),
            "our default, brought down to the ceiling"
        );

        let requested = LimitOverrides {
            timeout_ms: Some(Millis(100)),
            ..LimitOverrides::default()
        };
        assert_eq!(
            Limits::resolve(&requested, &image, &ceiling)
                .unwrap()
                .timeout_ms,
            Millis(100)
        );
        let greedy = LimitOverrides {
            memory: Some(ByteCount::mib(257)),
            ..LimitOverrides::default()
        };
        let error = Limits::resolve(&greedy, &image, &ceiling).unwrap_err();
        assert_eq!(
            error.to_string(),
            "limit memory 257MiB is above the image's ceiling of 256MiB"
        );
    }

    #[test]
    fn a_cap_below_its_floor_is_refused_with_the_floor() {
        let named = |memory, pids| LimitOverrides {
            memory,
            pids,
            ..LimitOverrides::default()
        };
        let none = LimitOverrides::default();
        for (case, overrides, message) in [
            (
                "zero",
                named(None, Some(Count(0))),
                "limit pids is 0 (want at least 1; leave it out for the default)",
            ),
            (
                "mebibytes without a unit",
                named(Some(ByteCount(64)), None),
                "limit memory is 64 bytes (want at least 4MiB; leave it out for the default; a \
                 number without a unit is bytes, so write \"64MiB\" for 64MiB)",
            ),
            (
                "too small with a unit",
                named(Some(ByteCount::kib(512)), None),
                "limit memory is 512KiB (want at least 4MiB; leave it out for the default)",
            ),
        ] {
            let error = Limits::resolve(&overrides, &none, &none).unwrap_err();
            assert_eq!(error.to_string(), message, "{case}");
            assert_eq!(overrides.check(), Err(error), "{case}");
        }
        let least = named(Some(Limits::FLOOR.memory), Some(Limits::FLOOR.pids));
        assert_eq!(least.check(), Ok(()));
        assert!(Limits::resolve(&least, &none, &none).is_ok());
    }
}
