//! Quantities that carry their unit in the type.
//!
//! Every number that crosses a module boundary has one of these types, so that bytes are never
//! mistaken for milliseconds. On the wire they are plain integers; a byte count may also be written
//! `"256MiB"`.
//!
//! Units of bytes are powers of 1024 in every spelling, as in Docker's `--memory`: `64M`, `64MB`,
//! `64Mi` and `64MiB` are the same size.

mod byte_count;
mod cpu_millis;
mod millis;
mod unix_millis;

pub use byte_count::{ByteCount, ByteCountError};
pub use cpu_millis::CpuMillis;
pub use millis::Millis;
pub use unix_millis::UnixMillis;
