//! Metrics of the slots.

use metrics::gauge;

use super::catalogue::{SLOTS, SLOTS_BUSY};
use super::gauge_value::gauge_value;

/// Sets the gauges of the slots: the total and the busy ones.
pub(crate) fn set_slots(total: usize, busy: usize) {
    gauge!(SLOTS).set(gauge_value(total as u64));
    gauge!(SLOTS_BUSY).set(gauge_value(busy as u64));
}
