//! Classes: the workers that may run a job, and the capacity that it takes.
//!
//! A class is a canonical set of tags: `cpu`, `a100+gpu`. Jobs whose memory or CPU differs from the
//! default size form a class of their own, with the size behind a tilde: `cpu~m2048c4000`. Each
//! class has its own tickets, so a worker waits only for tickets of jobs that fit it, and never
//! holds a ticket of a job that does not. Submitters name tags only. The size is computed from a
//! job's limits, here and nowhere else.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::id::{IdError, Tag};
use crate::size::Size;

/// Maximum number of tags in a class. Each set of tags is a stream of its own.
pub const MAX_TAGS: usize = 8;

/// Separator between the tags and the size.
const SIZE_SEPARATOR: char = '~';

/// A canonical set of tags, sorted and joined with `+`, followed by the size of its jobs unless
/// that is the default size: `cpu`, `a100+gpu`, `cpu~m2048c4000`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Class(String);

impl Class {
    /// Returns the class of `tags`, sorted and without duplicates, with the default size.
    ///
    /// # Errors
    /// Fails if there is no tag, or more than [`MAX_TAGS`].
    pub fn of(tags: impl IntoIterator<Item = Tag>) -> Result<Self, IdError> {
        let tags: BTreeSet<Tag> = tags.into_iter().collect();
        let joined = tags.iter().map(Tag::as_str).collect::<Vec<_>>().join("+");
        if tags.is_empty() || tags.len() > MAX_TAGS {
            return Err(IdError::new("class", &joined, "1 to 8 tags"));
        }
        Ok(Self(joined))
    }

    /// Returns the class with the same tags and this size.
    #[must_use]
    pub fn sized(&self, size: Size) -> Self {
        let tags = self.text_of_tags();
        if size == Size::DEFAULT {
            Self(tags.to_owned())
        } else {
            Self(format!("{tags}{SIZE_SEPARATOR}{size}"))
        }
    }

    /// Returns the class with the same tags and the default size.
    #[must_use]
    pub fn unsized_class(&self) -> Self {
        Self(self.text_of_tags().to_owned())
    }

    /// Returns the size of each job of this class.
    #[must_use]
    pub fn size(&self) -> Size {
        self.0
            .split_once(SIZE_SEPARATOR)
            .and_then(|(_tags, size)| size.parse().ok())
            .unwrap_or(Size::DEFAULT)
    }

    /// Returns the class as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the tags.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        self.text_of_tags().split('+')
    }

    /// Returns whether a worker with the tags `labels` may run jobs of this class. Sizes are not
    /// compared.
    #[must_use]
    pub fn is_covered_by(&self, labels: &BTreeSet<Tag>) -> bool {
        self.tags()
            .all(|tag| labels.iter().any(|label| label.as_str() == tag))
    }

    fn text_of_tags(&self) -> &str {
        self.0
            .split_once(SIZE_SEPARATOR)
            .map_or(&self.0, |(tags, _size)| tags)
    }
}

impl Default for Class {
    fn default() -> Self {
        Self("cpu".to_owned())
    }
}

impl FromStr for Class {
    type Err = IdError;

    /// Parses tags in any order, separated by `+` or `,`, and a size as [`Class::as_str`] writes
    /// it.
    fn from_str(text: &str) -> Result<Self, IdError> {
        let (tags, size) = match text.split_once(SIZE_SEPARATOR) {
            None => (text, Size::DEFAULT),
            Some((tags, size)) => (tags, size.parse()?),
        };
        let tags = tags
            .split(['+', ','])
            .map(|tag| tag.trim().parse())
            .collect::<Result<Vec<Tag>, _>>()?;
        Ok(Self::of(tags)?.sized(size))
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_canonical() {
        assert_eq!("gpu,a100".parse::<Class>().unwrap().as_str(), "a100+gpu");
        assert_eq!(
            "gpu+a100+gpu".parse::<Class>().unwrap().as_str(),
            "a100+gpu"
        );
        assert!("".parse::<Class>().is_err());
        assert!("a+b+c+d+e+f+g+h+i".parse::<Class>().is_err());
        let labels = ["cpu", "gpu"].iter().map(|t| t.parse().unwrap()).collect();
        assert!("gpu".parse::<Class>().unwrap().is_covered_by(&labels));
        assert!(!"gpu+a100".parse::<Class>().unwrap().is_covered_by(&labels));
    }

    #[test]
    fn a_size_is_part_of_a_class_and_no_tag() {
        let large: Class = "gpu+cpu~m2048c4000".parse().unwrap();
        assert_eq!(large.as_str(), "cpu+gpu~m2048c4000");
        assert_eq!(large.tags().collect::<Vec<_>>(), ["cpu", "gpu"]);
        assert_eq!(large.size().to_string(), "m2048c4000");
        assert_eq!(large.unsized_class().as_str(), "cpu+gpu");
        assert_eq!(large.sized(Size::DEFAULT), large.unsized_class());
        assert_eq!(Class::default().size(), Size::DEFAULT);
        assert_eq!(
            Class::default().sized(large.size()).as_str(),
            "cpu~m2048c4000"
        );
        for bad in [
            "cpu~",
            "cpu~m1c1",
            "cpu~m2048",
            "cpu~m512c1000x",
            "~m2048c4000",
            "cpu~m2048c4000~m2048c4000",
        ] {
            assert!(bad.parse::<Class>().is_err(), "case {bad}");
        }
    }
}
