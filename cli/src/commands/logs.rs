//! `sandhog logs`: what a job printed, so far or to its end.

use sandhog_producer::Client;

use super::conclude::ending;
use super::follow;
use super::status::unknown;
use crate::app::App;
use crate::args::LogsArgs;
use crate::exit::Exit;
use crate::fault::Fault;
use crate::signals::Signals;

/// Shows a job's output. Once the log has expired the result's copy is shown, for as long as that
/// is kept.
pub(crate) async fn logs(app: &App, args: &LogsArgs) -> Result<Exit, Fault> {
    let mut signals = Signals::listen()?;
    let client = app.client().await?;
    tokio::select! {
        exit = read(app, &client, args) => exit,
        stop = signals.next() => Ok(stop.exit()),
    }
}

/// Passes on the output. To its end, the exit code is that of the job.
async fn read(app: &App, client: &Client, args: &LogsArgs) -> Result<Exit, Fault> {
    if args.follow {
        let result = follow::output(client, &args.id, app.output).await?;
        return match result {
            Some(result) => {
                ending(app, &result, None)?;
                Ok(Exit::of(&result))
            }
            // A result may be gone before its log.
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
        None => return Err(unknown(&args.id)),
    }
    Ok(Exit::Success)
}
