//! A value that a program may read and nobody else.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A variable's value that is shown nowhere: no log and no error can print it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Hides a value.
    #[must_use]
    pub fn new(value: String) -> Self {
        Self(value)
    }

    /// The value, for the program.
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
