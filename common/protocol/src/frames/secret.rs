//! A value that only the program may read.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The value of an environment variable that must not be shown: no log and no error can print it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value so that it cannot be printed.
    #[must_use]
    pub fn new(value: String) -> Self {
        Self(value)
    }

    /// Returns the value, for the program.
    #[must_use]
    pub fn reveal(self) -> String {
        self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_show() {
        let hidden = vec![("NAME", Secret::new("hush".to_owned()))];
        assert_eq!(format!("{hidden:?}"), "[(\"NAME\", Secret(…))]");
    }
}
