//! `sandhog logs`: what a job printed, so far or to its end.

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
    let queue = app.client().await?;
    let read = tokio::select! {
        read = follow::output(&queue, &args.id, app.output, args.follow) => read?,
        stop = signals.next() => return Ok(stop.exit()),
    };
    if read > 0 {
        return Ok(Exit::Success);
    }
    match queue.result(&args.id).await? {
        Some(bytes) => follow::show(app.output, &follow::read(&args.id, &bytes)?)?,
        None if queue.job(&args.id).await?.is_some() => {}
        None => return Err(unknown(&args.id)),
    }
    Ok(Exit::Success)
}
