//! CPU shares as the quota of a period, which both versions of cgroups take.

/// Period over which CPU time is shared out, in microseconds.
pub(super) const PERIOD_US: u64 = 100_000;

/// Smallest CPU time in one period that the kernel accepts, in microseconds.
const MIN_QUOTA_US: u64 = 1000;

/// Returns the CPU time in one period for a share in thousandths of a core, in microseconds.
pub(super) fn cpu_quota_us(cpu_millis: u64) -> u64 {
    (cpu_millis.saturating_mul(PERIOD_US) / 1000).max(MIN_QUOTA_US)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_never_below_what_the_kernel_accepts() {
        assert_eq!(cpu_quota_us(1500), 150_000);
        assert_eq!(cpu_quota_us(1), MIN_QUOTA_US);
    }
}
