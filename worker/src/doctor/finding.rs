//! Findings of the doctor: the observation, its severity, and advice.

use serde::Serialize;

/// Severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// No problem.
    Ok,
    /// It works, but may cause a problem.
    Warn,
    /// Jobs will not run, or could be lost.
    Fail,
}

/// Result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The thing that was checked.
    pub subject: String,
    /// The severity.
    pub health: Severity,
    /// The observation.
    pub detail: String,
    /// Advice for the operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Finding {
    /// Creates a finding without a problem.
    #[must_use]
    pub fn ok(subject: &str, detail: impl Into<String>) -> Self {
        Self {
            subject: subject.to_owned(),
            health: Severity::Ok,
            detail: detail.into(),
            hint: None,
        }
    }

    /// Turns the finding into a warning.
    #[must_use]
    pub fn warn(self, hint: &str) -> Self {
        Self {
            health: Severity::Warn,
            hint: Some(hint.to_owned()),
            ..self
        }
    }

    /// Turns the finding into a failure.
    #[must_use]
    pub fn fail(self, hint: Option<&str>) -> Self {
        Self {
            health: Severity::Fail,
            hint: hint.map(str::to_owned),
            ..self
        }
    }
}
