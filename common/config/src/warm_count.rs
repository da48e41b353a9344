//! The number of containers that are kept ready for an image.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use sandhog_core::id::ImageName;

/// The number of unused containers of an image that are kept ready. As text: `python=2`, or
/// `python` for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WarmCount {
    /// The image.
    pub image: ImageName,
    /// The number of containers.
    pub count: u32,
}

/// Text that is not an image and a number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an image to keep warm (want NAME or NAME=NUMBER)")]
pub struct WarmCountError(String);

impl FromStr for WarmCount {
    type Err = WarmCountError;

    fn from_str(text: &str) -> Result<Self, WarmCountError> {
        let failed = || WarmCountError(sandhog_core::id::clip(text, 200));
        let (image, count) = text.rsplit_once('=').unwrap_or((text, "1"));
        Ok(Self {
            image: image.trim().parse().map_err(|_bad| failed())?,
            count: count.trim().parse().map_err(|_bad| failed())?,
        })
    }
}

impl fmt::Display for WarmCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.image, self.count)
    }
}

impl Serialize for WarmCount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for WarmCount {
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
    fn warm_images_read_and_print() {
        for (case, text, want) in [
            ("one", "python", Some("python=1")),
            ("more", "registry:5000/a@b=3", Some("registry:5000/a@b=3")),
            ("none", "python=0", Some("python=0")),
            ("no number", "python=x", None),
            ("no image", "=2", None),
            ("empty", "", None),
        ] {
            let read = text.parse::<WarmCount>().ok().map(|warm| warm.to_string());
            assert_eq!(read.as_deref(), want, "case {case}");
        }
    }
}
