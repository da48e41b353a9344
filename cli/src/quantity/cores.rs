//! Numbers of cores: `1.5`.

use sandhog_core::units::CpuMillis;

use super::thousandths::parse_thousandths;

/// Parses a number of cores, such as `0.5` or `2`.
///
/// # Errors
/// A message with the expected form.
pub(crate) fn parse_cores(text: &str) -> Result<CpuMillis, String> {
    parse_thousandths(text)
        .map(CpuMillis)
        .ok_or_else(|| "expected a number of cores such as 0.5 or 2".to_owned())
}

/// Returns a parser for numbers of cores of at least `least`.
pub(crate) fn parse_cores_at_least(
    least: CpuMillis,
) -> impl Fn(&str) -> Result<CpuMillis, String> + Clone + Send + Sync + 'static {
    move |text| {
        let share = parse_cores(text)?;
        if share >= least {
            return Ok(share);
        }
        let (whole, decimals) = (least.0 / 1000, least.0 % 1000);
        Err(format!("expected at least {whole}.{decimals:03} cores"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_read_as_typed() {
        assert_eq!(parse_cores("0.25"), Ok(CpuMillis(250)));
        assert!(parse_cores("1.2345").is_err());
        let least = parse_cores_at_least(CpuMillis(10));
        assert_eq!(least("0.01"), Ok(CpuMillis(10)));
        assert_eq!(
            least("0.009"),
            Err("expected at least 0.010 cores".to_owned())
        );
    }
}
