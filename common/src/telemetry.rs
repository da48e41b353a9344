//! Logs: one place that decides where they go and how they look.
//!
//! Messages are constant and carry fields. Nothing a job printed is ever logged.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::config::Environment;

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For a person.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging to standard error, in colour on a terminal that wants it. `filter` is a `tracing` directive such as `info` or `sandhog_worker=debug`.
///
/// A second call in one process changes nothing.
pub fn start(filter: &str, format: LogFormat) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_bad_directive| EnvFilter::new("info"));
    let base = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal() && Environment::current().wants_colour())
        .with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => base.try_init(),
        LogFormat::Json => base.json().try_init(),
    };
    if started.is_err() {
        tracing::debug!("logging was started before");
    }
}
