//! Sizes: the memory and CPU that a job takes from its worker's capacity while it runs.
//!
//! A size is a job's caps rounded up to a step, so that there are few sizes, and jobs with nearly
//! the same caps share a class. There are eight steps between one power of two and the next, so the
//! usual amounts are steps already: 1, 1.5, 3 or 10 GiB, a quarter of a core, 2 or 6 cores. A size
//! is for placement only. Enforcement uses the job's own limits, unrounded.

use std::fmt;
use std::str::FromStr;

use crate::id::IdError;
use crate::limits::Limits;
use crate::units::{ByteCount, CpuMillis};

/// Memory of the smallest size and the finest step, in MiB.
const MEMORY_STEP_MIB: (u64, u64) = (64, 8);

/// CPU of the smallest size and the finest step, in thousandths of a core.
const CPU_STEP_MILLIS: (u64, u64) = (125, 125);

/// Number of steps between one power of two and the next.
const STEPS_PER_OCTAVE: u64 = 8;

/// Upper bound of every amount, above any job and any machine. It keeps sums from overflowing.
const AMOUNT_MAX: u64 = 1 << 40;

/// Memory and CPU: the demand of a job, or the capacity of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Resources {
    /// Memory in MiB.
    pub memory_mib: u64,
    /// CPU in thousandths of a core.
    pub cpu_millis: u64,
}

impl Resources {
    /// More than any number of jobs demands.
    pub const UNBOUNDED: Self = Self {
        memory_mib: AMOUNT_MAX,
        cpu_millis: AMOUNT_MAX,
    };

    /// Returns the smaller memory and the smaller CPU of the two.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        Self {
            memory_mib: self.memory_mib.min(other.memory_mib),
            cpu_millis: self.cpu_millis.min(other.cpu_millis),
        }
    }

    /// Returns the larger memory and the larger CPU of the two.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            memory_mib: self.memory_mib.max(other.memory_mib),
            cpu_millis: self.cpu_millis.max(other.cpu_millis),
        }
    }

    /// Returns the sum.
    #[must_use]
    pub fn saturating_add(self, other: Self) -> Self {
        Self {
            memory_mib: self.memory_mib.saturating_add(other.memory_mib),
            cpu_millis: self.cpu_millis.saturating_add(other.cpu_millis),
        }
    }

    /// Returns the difference; a negative value becomes zero.
    #[must_use]
    pub fn saturating_sub(self, other: Self) -> Self {
        Self {
            memory_mib: self.memory_mib.saturating_sub(other.memory_mib),
            cpu_millis: self.cpu_millis.saturating_sub(other.cpu_millis),
        }
    }

    /// Returns both multiplied by `n`.
    #[must_use]
    pub fn saturating_mul(self, n: usize) -> Self {
        let n = u64::try_from(n).unwrap_or(AMOUNT_MAX);
        Self {
            memory_mib: self.memory_mib.saturating_mul(n).min(AMOUNT_MAX),
            cpu_millis: self.cpu_millis.saturating_mul(n).min(AMOUNT_MAX),
        }
    }

    /// Returns the number of times that `each` fits.
    #[must_use]
    pub fn count_fitting(self, each: Self) -> usize {
        let times = |have: u64, each: u64| have.checked_div(each).unwrap_or(AMOUNT_MAX);
        let least =
            times(self.memory_mib, each.memory_mib).min(times(self.cpu_millis, each.cpu_millis));
        usize::try_from(least).unwrap_or(usize::MAX)
    }
}

/// The memory and CPU that each job of a class takes from its worker's capacity, rounded up to
/// steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Size(Resources);

impl Size {
    /// The default size: for jobs that name no memory or CPU, and for jobs that name the same
    /// amounts.
    pub const DEFAULT: Self = Self(Resources {
        memory_mib: Limits::DEFAULT.memory.0 >> 20,
        cpu_millis: Limits::DEFAULT.cpu_millis.0,
    });

    /// Returns the smallest size with at least this memory and CPU.
    #[must_use]
    pub fn of(memory: ByteCount, cpu: CpuMillis) -> Self {
        Self(Resources {
            memory_mib: round_up(memory.0.div_ceil(1 << 20), MEMORY_STEP_MIB),
            cpu_millis: round_up(cpu.0, CPU_STEP_MILLIS),
        })
    }

    /// Returns the memory and the CPU.
    #[must_use]
    pub fn resources(self) -> Resources {
        self.0
    }

    /// Returns whether a job of size `other` takes no more memory and no more CPU.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        self.0.max(other.0) == self.0
    }
}

/// Returns the smallest step that is not below `value`. A step is an eighth of the largest `least *
/// 2^n` that is not above `value`, and never below `finest`.
fn round_up(value: u64, (least, finest): (u64, u64)) -> u64 {
    let value = value.clamp(least, AMOUNT_MAX);
    let octave = least << (value / least).ilog2();
    let unit = (octave / STEPS_PER_OCTAVE).max(finest);
    value.div_ceil(unit) * unit
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Resources {
            memory_mib,
            cpu_millis,
        } = self.0;
        write!(f, "m{memory_mib}c{cpu_millis}")
    }
}

impl FromStr for Size {
    type Err = IdError;

    /// Parses the text that [`Size`] displays. Amounts that are not steps are errors.
    fn from_str(text: &str) -> Result<Self, IdError> {
        let amounts = || {
            let (memory, cpu) = text.strip_prefix('m')?.split_once('c')?;
            let memory: u64 = memory.parse().ok()?;
            let size = Self::of(
                ByteCount(memory.checked_mul(1 << 20)?),
                CpuMillis(cpu.parse().ok()?),
            );
            (size.to_string() == text).then_some(size)
        };
        amounts().ok_or_else(|| IdError::new("size", text, "a step, such as m2048c4000"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(mib: u64, cpu: u64) -> String {
        Size::of(ByteCount::mib(mib), CpuMillis(cpu)).to_string()
    }

    #[test]
    fn what_people_ask_for_is_a_step() {
        assert_eq!(size(512, 1000), Size::DEFAULT.to_string());
        for mib in [64, 128, 256, 768, 1024, 1536, 3072, 5120, 10_240, 65_536] {
            assert_eq!(size(mib, 1000), format!("m{mib}c1000"));
        }
        for cpu in [
            125, 250, 500, 750, 1500, 2000, 3000, 6000, 7000, 12_000, 64_000,
        ] {
            assert_eq!(size(512, cpu), format!("m512c{cpu}"));
        }
    }

    #[test]
    fn other_amounts_are_rounded_up_by_an_eighth_at_most() {
        for (mib, cpu, want) in [
            (1, 1, "m64c125"),
            (65, 130, "m72c250"),
            (1025, 1001, "m1152c1125"),
            (1843, 3999, "m1920c4000"),
            (u64::MAX >> 20, u64::MAX, "m1099511627776c1207959552000"),
        ] {
            let size = size(mib, cpu);
            assert_eq!(size, want);
            assert_eq!(size.parse::<Size>().unwrap().to_string(), size);
        }
        for mib in 64..5000 {
            let Resources { memory_mib, .. } =
                Size::of(ByteCount::mib(mib), CpuMillis(1000)).resources();
            assert!(
                memory_mib >= mib && memory_mib * 8 <= mib * 9 + 8,
                "{mib} became {memory_mib}"
            );
        }
    }

    #[test]
    fn amounts_are_counted_by_what_is_scarcest() {
        let whole = Resources {
            memory_mib: 1000,
            cpu_millis: 4000,
        };
        let each = Resources {
            memory_mib: 300,
            cpu_millis: 1000,
        };
        assert_eq!(whole.count_fitting(each), 3);
        assert_eq!(
            whole
                .saturating_sub(each.saturating_mul(2))
                .count_fitting(each),
            1
        );
        assert_eq!(
            whole.saturating_sub(each.saturating_mul(9)),
            Resources::default()
        );
        assert_eq!(each.saturating_add(each), each.saturating_mul(2));
        assert_eq!(Resources::UNBOUNDED.saturating_mul(5), Resources::UNBOUNDED);
    }
}
