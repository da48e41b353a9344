//! `sandhog logs`: what a job printed, so far or to its end.

use sandhog_producer::Client;

use super::follow;
use super::status::unknown;
use crate::app::App;
use crate::args::LogsArgs;
use crate::exit::Exit;
use crate::fault::Fault;
use crate::signals::Signals;

/// Shows a job's output. Once the log has expired the result's copy is shown, for as long as that is kept.
pub(crate) async fn logs(app: &App, args: &LogsArgs) -> Result<Exit, Fault> {
    let mut signals = Signals::listen()?;
    let client = app.client().await?;
    let read = tokio::select! {
        read = read(app, &client, args) => read?,
        stop = signals.next() => return Ok(stop.exit()),
    };
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

/// Passes on the output and answers how many pieces there were.
async fn read(app: &App, client: &Client, args: &LogsArgs) -> Result<usize, Fault> {
    if args.follow {
        follow::output(client, &args.id, app.output).await
    } else {
        follow::so_far(client, &args.id, app.output).await
    }
}
