//! `sandhog infer`: calls a model once, with a worker of the queue or with a private one.

use sandhog_core::submission::Routing;

use super::run::{ResultOptions, run_job};
use crate::args::InferArgs;
use crate::context::AppContext;
use crate::error::CliError;
use crate::exit::Exit;
use crate::job_request;

/// Calls a model and prints its answer: as JSON at the end, or piece by piece.
pub(crate) async fn infer(app: &AppContext, args: &InferArgs) -> Result<Exit, CliError> {
    let job = job_request::infer_job(args)?;
    let routing = Routing {
        trace: job_request::trace_context(&app.environment),
        ..job_request::infer_routing(args)?
    };
    let request = (job, routing);
    let shown = ResultOptions {
        value: !args.stream,
        save: None,
        force: false,
    };
    run_job(app, &request, shown).await
}
