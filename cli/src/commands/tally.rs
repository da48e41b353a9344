//! The results of many jobs: a line for each, and the exit code for all of them.

use sandhog_core::id::JobId;
use sandhog_core::outcome::JobResult;

use super::verdict::verdict;
use crate::context::AppContext;
use crate::error::CliError;
use crate::exit::Exit;
use crate::output::{Table, sanitize};

/// The exit code for many jobs, collected from their ends.
#[derive(Debug, Default)]
pub(super) struct Tally {
    unsuccessful: bool,
    unknown: bool,
}

impl Tally {
    /// Prints the line of a job that has ended.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn result(
        &mut self,
        app: &AppContext,
        id: &JobId,
        result: &JobResult,
    ) -> Result<(), CliError> {
        self.unsuccessful |= Exit::of(result) != Exit::Success;
        line(app, id, result)
    }

    /// Prints the error of a job that is unknown. The wait for the other jobs continues.
    pub(super) fn unknown(&mut self, app: &AppContext, error: &CliError) {
        self.unknown = true;
        app.output.error(error);
    }

    /// Returns the exit code for all jobs.
    pub(super) const fn exit(&self) -> Exit {
        if self.unknown {
            Exit::Missing
        } else if self.unsuccessful {
            Exit::Unsuccessful
        } else {
            Exit::Success
        }
    }
}

fn line(app: &AppContext, id: &JobId, result: &JobResult) -> Result<(), CliError> {
    if app.output.is_json() {
        return app.output.json(result);
    }
    let why = match (result.exit_code, &result.error) {
        (Some(code), None) => format!("exit code {code}"),
        (_, _) => verdict(result).map_or_else(String::new, |verdict| sanitize(&verdict)),
    };
    let mut table = Table::default();
    table.row([id.to_string(), result.outcome.to_string(), why]);
    app.output.table(&table)
}
