//! `sandhog worker`: runs the worker in the foreground.

use sandhog_worker::{StartError, Worker};
use tokio_util::sync::CancellationToken;

use crate::context::AppContext;
use crate::error::CliError;
use crate::exit::Exit;
use crate::signals::SignalStream;

/// Claims and runs jobs until a signal arrives, then drains. A second signal ends the wait for
/// running jobs.
pub(crate) async fn worker(app: &AppContext) -> Result<Exit, CliError> {
    let mut signals = SignalStream::listen()?;
    let settings = app.queue_settings()?;
    let worker = tokio::select! {
        started = Worker::start(&settings) => started?,
        stop = signals.next() => return Ok(stop.exit()),
    };
    signals.next().await;
    drain(worker, &mut signals).await;
    Ok(Exit::Success)
}

/// Stops a worker gracefully. Another signal ends the wait for running jobs.
pub(crate) async fn drain(worker: Worker, signals: &mut SignalStream) {
    let hurry = CancellationToken::new();
    let stop = worker.stop(hurry.clone());
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => return,
            _ = signals.next() => hurry.cancel(),
        }
    }
}

impl From<StartError> for CliError {
    fn from(error: StartError) -> Self {
        let hint = error.hint().map(str::to_owned);
        let exit = match &error {
            StartError::Queue { .. } | StartError::Sandbox(_) => Exit::Unavailable,
            StartError::Http { .. }
            | StartError::Trace(_)
            | StartError::Gpus(_)
            | StartError::Secrets(_)
            | StartError::NothingOffered { .. } => Exit::Settings,
        };
        Self {
            exit,
            hint,
            error: error.into(),
        }
    }
}
