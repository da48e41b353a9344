//! `sandhog wait`: waits for results. Waiting changes nothing in the queue, so any number of
//! commands may wait for the same job, and repeatedly.

use std::collections::BTreeSet;
use std::future::Future;

use sandhog_producer::Client;

use super::conclude::{Conclusion, conclude};
use super::ids::Ids;
use super::tally::Tally;
use super::{follow, replies, save};
use crate::args::WaitArgs;
use crate::context::AppContext;
use crate::error::CliError;
use crate::exit::Exit;
use crate::signals::SignalStream;

/// Waits for one job and prints its result as `run` does, or for many jobs with a line for each.
pub(crate) async fn wait(app: &AppContext, args: &WaitArgs) -> Result<Exit, CliError> {
    let mut signals = SignalStream::listen()?;
    let client = app.client().await?;
    tokio::select! {
        exit = within(args, wait_for_all(app, &client, args)) => exit,
        stop = signals.next() => {
            app.output.note("sandhog: interrupted; the jobs continue");
            Ok(stop.exit())
        }
    }
}

async fn within(
    args: &WaitArgs,
    waiting: impl Future<Output = Result<Exit, CliError>>,
) -> Result<Exit, CliError> {
    match args.timeout {
        None => waiting.await,
        Some(timeout) => tokio::time::timeout(timeout.duration(), waiting)
            .await
            .unwrap_or_else(|_elapsed| {
                Err(
                    CliError::message(Exit::NotYet, format!("no result within {timeout}"))
                        .hint("`sandhog status` shows whether a worker can run the job"),
                )
            }),
    }
}

async fn wait_for_all(
    app: &AppContext,
    client: &Client,
    args: &WaitArgs,
) -> Result<Exit, CliError> {
    let mut ids = Ids::new(&args.ids);
    if let Some(name) = &args.reply {
        return replies::wait_for_replies(app, client, name, args.count, &mut ids).await;
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
            saved: &save::report_unsaved(&[], &result),
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
            Err(error) if error.exit == Exit::Missing => tally.unknown(app, &error),
            Err(error) => return Err(error),
        }
    }
    Ok(tally.exit())
}
