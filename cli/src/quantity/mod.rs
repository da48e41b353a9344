//! Parsing and formatting of quantities for people: `30s`, `1.5` cores, `64MiB`.

mod cores;
mod duration;
mod size;
mod thousandths;

pub(crate) use cores::parse_cores_at_least;
pub(crate) use duration::{
    format_distance, format_duration, parse_duration, parse_interval, parse_positive_duration,
};
pub(crate) use size::{format_size, parse_size_at_least};
