//! `sandhog logs`: prints the output of a job, so far or until the job ends.

use sandhog_producer::Client;

use super::conclude::ending;
use super::follow;
use super::unknown_job::unknown_job;
use crate::args::LogsArgs;
use crate::context::AppContext;
use crate::error::CliError;
use crate::exit::Exit;
use crate::signals::SignalStream;

/// Prints a job's output. After the log has expired, prints the copy in the result, as long as that
/// is kept.
pub(crate) async fn logs(app: &AppContext, args: &LogsArgs) -> Result<Exit, CliError> {
    let mut signals = SignalStream::listen()?;
    let client = app.client().await?;
    tokio::select! {
        exit = print_output(app, &client, args) => exit,
        stop = signals.next() => Ok(stop.exit()),
    }
}

/// Prints the output. With `--follow`, the exit code is that of the job.
async fn print_output(
    app: &AppContext,
    client: &Client,
    args: &LogsArgs,
) -> Result<Exit, CliError> {
    if args.follow {
        let result = follow::output(client, &args.id, app.output).await?;
        return match result {
            Some(result) => {
                ending(app, &result, None)?;
                Ok(Exit::of(&result))
            }
            // The result may expire before the log.
            None => Ok(Exit::Success),
        };
    }
    let read = follow::so_far(client, &args.id, app.output).await?;
    if read > 0 {
        return Ok(Exit::Success);
    }
    match client.result(&args.id).await? {
        Some(result) => follow::show(app.output, &result)?,
        None if client.inspect(&args.id).await?.is_some() => {}
        None => return Err(unknown_job(&args.id)),
    }
    Ok(Exit::Success)
}
