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
