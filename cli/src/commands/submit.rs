//! `sandhog submit`: submits jobs without waiting for their results.

use sandhog_common::submission::Routing;
use serde_json::json;

use crate::app::App;
use crate::args::SubmitArgs;
use crate::exit::Exit;
use crate::fault::Fault;
use crate::submission;

/// Most jobs in one call of the client.
const BATCH: usize = 500;

/// Submits one job, or all jobs of a file, and prints their ids in order.
pub(crate) async fn submit(app: &App, args: &SubmitArgs) -> Result<Exit, Fault> {
    let routing = Routing {
        trace: submission::trace(&app.environment),
        ..submission::routing(&args.routing, Some(&args.schedule), Some(&args.caps))?
    };
    let orders = match &args.jobs {
        Some(path) => submission::many(path, &routing)?,
        None => {
            let job = submission::job(app, &args.program, &args.caps)?;
            vec![(job, routing)]
        }
    };
    let client = app.client().await?;
    for batch in orders.chunks(BATCH) {
        for id in client.submit_batch(batch.iter().cloned()).await? {
            if app.output.is_json() {
                app.output.json(&json!({"id": id}))?;
            } else {
                app.output.line(id.as_str())?;
            }
        }
    }
    Ok(Exit::Success)
}
