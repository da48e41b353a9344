//! What can be wrong with the settings, told all at once.

use std::fmt;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The setting's key, such as `worker.slots`, or the file or variable that is wrong as a whole.
    pub key: String,
    /// The value found, with passwords hidden; none when the key itself is wrong.
    pub value: Option<String>,
    /// Where it was found: a file, a variable or a flag.
    pub origin: String,
    /// What is wrong with it, and what is wanted.
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
    /// What is wrong: at least one thing.
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

/// The name in `known` that `typed` was probably meant to be: at most a third of its letters away.
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

/// Edits from one name to the other: insertions, deletions, replacements.
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
