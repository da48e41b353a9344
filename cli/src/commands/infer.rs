//! `sandhog infer`: calls a model once, with a worker of the queue or with a private one.

use sandhog_common::submission::Routing;

use super::run::{Shown, carry_out};
use crate::app::App;
use crate::args::InferArgs;
use crate::exit::Exit;
use crate::fault::Fault;
use crate::submission;

/// Calls a model and prints its answer: as JSON at the end, or piece by piece.
pub(crate) async fn infer(app: &App, args: &InferArgs) -> Result<Exit, Fault> {
    let job = submission::question(args)?;
    let routing = Routing {
        trace: submission::trace(&app.environment),
        ..submission::routing(&args.routing, None, None)?
    };
    let order = (job, routing);
    let shown = Shown {
        value: !args.stream,
        save: None,
        force: false,
    };
    carry_out(app, &order, shown).await
}
