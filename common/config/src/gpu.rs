//! The types of the GPU settings that are not plain numbers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The way in which a container gets its GPUs. On the wire: the name in snake case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attach {
    /// By the engine's NVIDIA runtime.
    Nvidia,
    /// By the names of the Container Device Interface.
    Cdi,
    /// Not at all. For tests.
    None,
}

/// The GPUs that a worker assigns to jobs. As text: `all`, `none`, or a comma-separated list of
/// names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GpuChoice {
    /// All that the driver lists.
    All,
    /// No GPU.
    None,
    /// The GPUs with these uuids or numbers.
    Some(Vec<String>),
}

/// Text that is not a choice of GPUs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a choice of GPUs (want all, none, or comma-separated uuids and numbers)")]
pub struct GpuChoiceError(String);

impl GpuChoice {
    /// Returns whether the GPU with this uuid and number is chosen.
    #[must_use]
    pub fn takes(&self, uuid: &str, number: u32) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::Some(names) => {
                let number = number.to_string();
                names.iter().any(|name| *name == number || name == uuid)
            }
        }
    }
}

impl FromStr for GpuChoice {
    type Err = GpuChoiceError;

    fn from_str(text: &str) -> Result<Self, GpuChoiceError> {
        match text.trim() {
            "all" => return Ok(Self::All),
            "none" => return Ok(Self::None),
            _names => {}
        }
        let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
        let valid = |name: &String| {
            let number = !name.is_empty() && name.chars().all(|c| c.is_ascii_digit());
            number || name.starts_with("GPU-")
        };
        if names.iter().all(valid) {
            Ok(Self::Some(names))
        } else {
            Err(GpuChoiceError(sandhog_core::id::clip(text, 200)))
        }
    }
}

impl fmt::Display for GpuChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::None => f.write_str("none"),
            Self::Some(names) => f.write_str(&names.join(",")),
        }
    }
}

impl Serialize for GpuChoice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GpuChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_read_print_and_take() {
        for (case, text, takes) in [
            ("all", "all", Some(true)),
            ("none", "none", Some(false)),
            ("by number", "0,2", Some(true)),
            ("another number", "1", Some(false)),
            ("by uuid", "GPU-a", Some(true)),
            ("a word", "first", None),
            ("nothing", "", None),
            ("an empty name", "0,", None),
        ] {
            let choice = text.parse::<GpuChoice>().ok();
            let taken = choice.as_ref().map(|choice| choice.takes("GPU-a", 2));
            assert_eq!(taken, takes, "case {case}");
            if let Some(choice) = choice {
                assert_eq!(choice.to_string(), text, "case {case}");
            }
        }
    }
}
