//! The priority of a job.

use std::str::FromStr;

/// Urgency of a job, from 0 (least urgent) to 9 (most urgent). The default is 4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Priority(u8);

impl Priority {
    /// Returns the level, 0 to 9.
    #[must_use]
    pub const fn level(self) -> u8 {
        self.0
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self(4)
    }
}

impl FromStr for Priority {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.parse::<u8>() {
            Ok(level @ 0..=9) => Ok(Self(level)),
            Ok(_) | Err(_) => Err(()),
        }
    }
}
