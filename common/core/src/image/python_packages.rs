//! Python packages of an image.

use serde::{Deserialize, Serialize};

/// Python packages that the build adds to an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PythonPackages {
    /// Requirements as pip reads them, such as `shapely==2.1.1`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<String>,
}

impl PythonPackages {
    /// Returns whether there is nothing to add.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.packages.is_empty()
    }

    /// Returns the first entry that is not exactly one requirement.
    pub(super) fn fault(&self) -> Option<&str> {
        let is_requirement = |text: &str| {
            text.starts_with(|first: char| first.is_ascii_alphanumeric())
                && !text.contains(|c: char| c.is_control())
        };
        self.packages
            .iter()
            .map(String::as_str)
            .find(|text| !is_requirement(text))
    }
}
