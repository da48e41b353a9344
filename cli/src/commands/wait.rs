//! `sandhog wait`: until results are there. Waiting changes nothing: anyone may wait, as often as they like.

use std::collections::BTreeSet;
use std::future::Future;

use sandhog_common::id::JobId;
use sandhog_common::outcome::JobResult;
use sandhog_producer::Client;

use super::conclude::{Conclusion, conclude};
use super::verdict::verdict;
use super::{follow, save};
use crate::app::App;
use crate::args::WaitArgs;
use crate::exit::Exit;
use crate::fault::Fault;
use crate::output::{Table, tame};
use crate::signals::Signals;

/// Waits for one job as `run` does, or for many with a line each.
pub(crate) async fn wait(app: &App, args: &WaitArgs) -> Result<Exit, Fault> {
    let mut signals = Signals::listen()?;
    let client = app.client().await?;
    tokio::select! {
        exit = within(args, all(app, &client, args)) => exit,
        stop = signals.next() => Ok(stop.exit()),
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
                        .hint("`sandhog status` shows whether a worker is there to run it"),
                )
            }),
    }
}

async fn all(app: &App, client: &Client, args: &WaitArgs) -> Result<Exit, Fault> {
    if let [id] = args.ids.as_slice() {
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
    let mut exit = Exit::Success;
    // In the order asked for, each once: the slowest decides how long it takes either way.
    let mut seen = BTreeSet::new();
    for id in args.ids.iter().filter(|id| seen.insert(*id)) {
        let result = follow::result(app.output, client, id).await?;
        if Exit::of(&result) != Exit::Success {
            exit = Exit::Unsuccessful;
        }
        line(app, id, &result)?;
    }
    Ok(exit)
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
