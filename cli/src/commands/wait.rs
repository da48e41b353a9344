//! `sandhog wait`: waits for results. Waiting changes nothing in the queue, so any number of
//! commands may wait for the same job, and repeatedly.

use std::collections::BTreeSet;
use std::future::Future;

use sandhog_common::id::JobId;
use sandhog_common::outcome::JobResult;
use sandhog_producer::Client;

use super::conclude::{Conclusion, conclude};
use super::ids::Ids;
use super::verdict::verdict;
use super::{follow, replies, save};
use crate::app::App;
use crate::args::WaitArgs;
use crate::exit::Exit;
use crate::fault::Fault;
use crate::output::{Table, tame};
use crate::signals::Signals;

/// Waits for one job and prints its result as `run` does, or for many jobs with a line for each.
pub(crate) async fn wait(app: &App, args: &WaitArgs) -> Result<Exit, Fault> {
    let mut signals = Signals::listen()?;
    let client = app.client().await?;
    tokio::select! {
        exit = within(args, all(app, &client, args)) => exit,
        stop = signals.next() => {
            app.output.note("sandhog: interrupted; the jobs continue");
            Ok(stop.exit())
        }
    }
}

async fn within(
    args: &WaitArgs,
    waiting: impl Future<Output = Result<Exit, Fault>>,
) -> Result<Exit, Fault> {
    match args.timeout {
        None => waiting.await,
        Some(timeout) => tokio::time::timeout(timeout.duration(), waiting)
            .await
            .unwrap_or_else(|_elapsed| {
                Err(
                    Fault::message(Exit::NotYet, format!("no result within {timeout}"))
                        .hint("`sandhog status` shows whether a worker can run the job"),
                )
            }),
    }
}

async fn all(app: &App, client: &Client, args: &WaitArgs) -> Result<Exit, Fault> {
    let mut ids = Ids::new(&args.ids);
    if let Some(name) = &args.reply {
        return replies::wait(app, client, name, args.count, &mut ids).await;
    }
    if let [id] = args.ids.as_slice()
        && !Ids::is_standard_input(id)
    {
        let result = follow::result(app.output, client, id).await?;
        if app.output.is_json() {
            app.output.json(&result)?;
            return Ok(Exit::of(&result));
        }
        follow::show(app.output, &result)?;
        let conclusion = Conclusion {
            value: args.value,
            job: None,
            saved: &save::unsaved(&[], &result),
        };
        return conclude(app, &result, conclusion);
    }
    let mut tally = Tally::default();
    // Waits in the order of the arguments, once for each job. Another order would not be faster:
    // the slowest job decides.
    let mut seen = BTreeSet::new();
    while let Some(id) = ids.next().await? {
        if !seen.insert(id.clone()) {
            continue;
        }
        match follow::result(app.output, client, &id).await {
            Ok(result) => tally.result(app, &id, &result)?,
            Err(fault) if fault.exit == Exit::Missing => tally.unknown(app, &fault),
            Err(fault) => return Err(fault),
        }
    }
    Ok(tally.exit())
}

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
        app: &App,
        id: &JobId,
        result: &JobResult,
    ) -> Result<(), Fault> {
        self.unsuccessful |= Exit::of(result) != Exit::Success;
        line(app, id, result)
    }

    /// Prints the error of a job that is unknown. The wait for the other jobs continues.
    pub(super) fn unknown(&mut self, app: &App, fault: &Fault) {
        self.unknown = true;
        app.output.fault(fault);
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

fn line(app: &App, id: &JobId, result: &JobResult) -> Result<(), Fault> {
    if app.output.is_json() {
        return app.output.json(result);
    }
    let why = match (result.exit_code, &result.error) {
        (Some(code), None) => format!("exit code {code}"),
        (_, _) => verdict(result).map_or_else(String::new, |verdict| tame(&verdict)),
    };
    let mut table = Table::default();
    table.row([id.to_string(), result.outcome.to_string(), why]);
    app.output.table(&table)
}
