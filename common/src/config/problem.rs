//! Problems of the settings, reported all at once.

use std::fmt;

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The setting's key, such as `worker.slots`, or the name of a file or variable that is invalid
    /// as a whole.
    pub key: String,
    /// The value, with passwords hidden; none if the key itself is invalid.
    pub value: Option<String>,
    /// The origin of the value: a file, a variable or a flag.
    pub origin: String,
    /// The fault, and the allowed values.
    pub detail: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        if let Some(value) = &self.value {
            write!(f, " = {value}")?;
        }
        write!(f, " ({}): {}", self.origin, self.detail)
    }
}

/// Settings that cannot be used, with every reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", list(problems))]
pub struct ConfigError {
    /// The problems: at least one.
    pub problems: Vec<Problem>,
}

fn list(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems
        .iter()
        .map(|problem| format!("\n  {problem}"))
        .collect();
    let noun = if problems.len() == 1 {
        "problem"
    } else {
        "problems"
    };
    format!(
        "{} {noun} in the settings:{}",
        problems.len(),
        lines.concat()
    )
}

/// Returns the name in `known` that is most similar to `typed`, if it differs by at most a third of
/// its length.
pub(crate) fn nearest<'a>(
    typed: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    known
        .into_iter()
        .map(|name| (distance(typed, name), name))
        .filter(|(edits, name)| *edits * 3 <= name.len().max(typed.len()))
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, name)| name)
}

/// Returns the edit distance of two names: the number of insertions, deletions and replacements.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_name_is_found_and_a_far_one_is_not() {
        let known = ["worker.slots", "worker.tags", "redis.url"];
        assert_eq!(nearest("worker.slot", known), Some("worker.slots"));
        assert_eq!(nearest("redis.ulr", known), Some("redis.url"));
        assert_eq!(nearest("colour", known), None);
    }
}
