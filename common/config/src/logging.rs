//! Logging: the one place that sets the destination and the format of log lines.
//!
//! Messages are constant and carry fields. The output of a job is never logged.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::Environment;

/// Format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Plain text for people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Starts logging to standard error, in colour if that is a terminal and the environment allows
/// colour. `filter` is a `tracing` directive such as `info` or `sandhog_worker=debug`.
///
/// A second call in the same process has no effect.
pub fn start_logging(filter: &str, format: LogFormat) {
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
        tracing::debug!("logging is already started");
    }
}
