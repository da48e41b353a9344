//! Shares of CPU.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Thousandths of one core: 1000 is one whole core.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct CpuMillis(pub u64);

impl fmt::Display for CpuMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} thousandths of a core", self.0)
    }
}
