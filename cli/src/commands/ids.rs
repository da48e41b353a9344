//! The job ids of a command: those on the command line, and for `-` those on standard input, one on
//! each line.

use std::collections::VecDeque;
use std::io::BufRead as _;

use anyhow::Context as _;
use sandhog_core::id::JobId;
use serde::Deserialize;
use tokio::sync::mpsc;

use crate::error::CliError;
use crate::exit::Exit;

/// Most lines that are read ahead.
const READ_AHEAD_LINES: usize = 1024;

/// A line of `sandhog submit --json`.
#[derive(Debug, Deserialize)]
struct SubmitLine {
    id: JobId,
}

/// A sequence of job ids.
#[derive(Debug)]
pub(super) struct Ids {
    listed: VecDeque<JobId>,
    lines: Option<mpsc::Receiver<Result<JobId, CliError>>>,
}

impl Ids {
    /// Creates the sequence of the listed ids. An id `-` stands for the ids on standard input.
    pub(super) fn new(listed: &[JobId]) -> Self {
        Self {
            listed: listed.iter().cloned().collect(),
            lines: None,
        }
    }

    /// Returns whether this stands for standard input.
    pub(super) fn is_standard_input(id: &JobId) -> bool {
        id.as_str() == "-"
    }

    /// Returns the next id, or `None` after the last.
    ///
    /// # Cancel safety
    /// Safe: an id is taken only by the call that returns it.
    ///
    /// # Errors
    /// If standard input cannot be read, or a line does not contain an id.
    pub(super) async fn next(&mut self) -> Result<Option<JobId>, CliError> {
        loop {
            if let Some(lines) = &mut self.lines {
                match lines.recv().await {
                    Some(line) => return line.map(Some),
                    None => self.lines = None,
                }
            }
            match self.listed.pop_front() {
                Some(id) if Self::is_standard_input(&id) => self.lines = Some(standard_input()),
                id => return Ok(id),
            }
        }
    }
}

/// Reads ids from standard input on a separate thread. A read of standard input cannot be
/// cancelled, and must not delay the end of this process.
fn standard_input() -> mpsc::Receiver<Result<JobId, CliError>> {
    let (found, ids) = mpsc::channel(READ_AHEAD_LINES);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let id = match line {
                Ok(line) if line.trim().is_empty() => continue,
                Ok(line) => parse_id(line.trim()),
                Err(error) => Err(CliError::new(
                    Exit::Missing,
                    anyhow::Error::new(error).context("could not read standard input"),
                )),
            };
            let is_last = id.is_err();
            if found.blocking_send(id).is_err() || is_last {
                return;
            }
        }
    });
    ids
}

/// Parses a line: an id, or a line of `sandhog submit --json`.
fn parse_id(line: &str) -> Result<JobId, CliError> {
    let id = if line.starts_with('{') {
        serde_json::from_str(line)
            .map(|SubmitLine { id }| id)
            .map_err(anyhow::Error::new)
    } else {
        line.parse().map_err(anyhow::Error::new)
    };
    id.with_context(|| format!("no job id on standard input: {line:?}"))
        .map_err(|error| CliError::new(Exit::Usage, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_an_id_or_an_answer_of_submit() {
        for (line, want) in [
            ("a-1", Some("a-1")),
            (r#"{"id":"a:2"}"#, Some("a:2")),
            (r#"{"job":"a"}"#, None),
            ("two words", None),
        ] {
            let id = parse_id(line).ok();
            assert_eq!(id.as_ref().map(JobId::as_str), want, "{line}");
        }
    }
}
