//! `sandhog logs`: prints the output of a job, so far or until the job ends.

use sandhog_producer::Client;

use super::conclude::ending;
use super::follow;
use super::status::unknown;
use crate::app::App;
use crate::args::LogsArgs;
use crate::exit::Exit;
use crate::fault::Fault;
use crate::signals::Signals;

/// Prints a job's output. After the log has expired, prints the copy in the result, as long as that
/// is kept.
pub(crate) async fn logs(app: &App, args: &LogsArgs) -> Result<Exit, Fault> {
    let mut signals = Signals::listen()?;
    let client = app.client().await?;
    tokio::select! {
        exit = read(app, &client, args) => exit,
        stop = signals.next() => Ok(stop.exit()),
    }
}

/// Prints the output. With `--follow`, the exit code is that of the job.
async fn read(app: &App, client: &Client, args: &LogsArgs) -> Result<Exit, Fault> {
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
        None => return Err(unknown(&args.id)),
    }
    Ok(Exit::Success)
}
