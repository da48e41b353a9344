//! Conversion of counts to the values of gauges.

/// Returns a count as the value of a gauge.
#[expect(
    clippy::cast_precision_loss,
    reason = "a gauge is a float; counts stay far below 2^53"
)]
pub(super) fn gauge_value(count: u64) -> f64 {
    count as f64
}
