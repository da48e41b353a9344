//! `sandhog submit`: submits jobs without waiting for their results.

use sandhog_core::submission::Routing;
use serde_json::json;

use crate::args::SubmitArgs;
use crate::context::AppContext;
use crate::error::CliError;
use crate::exit::Exit;
use crate::job_request;

/// Most jobs in one call of the client.
const SUBMIT_BATCH: usize = 500;

/// Submits one job, or all jobs of a file, and prints their ids in order.
pub(crate) async fn submit(app: &AppContext, args: &SubmitArgs) -> Result<Exit, CliError> {
    let routing = Routing {
        trace: job_request::trace_context(&app.environment),
        ..job_request::program_routing(&args.options)?
    };
    let requests = match &args.jobs {
        Some(path) => job_request::read_jobs(path, &routing)?,
        None => {
            let job = job_request::program_job(app, &args.options)?;
            vec![(job, routing)]
        }
    };
    let client = app.client().await?;
    for batch in requests.chunks(SUBMIT_BATCH) {
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
