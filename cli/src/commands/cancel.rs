//! `sandhog cancel`: requests the cancellation of jobs. A job's result shows whether it was
//! cancelled.

use serde_json::json;

use crate::args::CancelArgs;
use crate::context::AppContext;
use crate::error::CliError;
use crate::exit::Exit;

/// Requests the cancellation of each job. A job that has already ended keeps its result.
pub(crate) async fn cancel(app: &AppContext, args: &CancelArgs) -> Result<Exit, CliError> {
    let client = app.client().await?;
    for id in &args.ids {
        client.cancel(id).await?;
        if app.output.is_json() {
            app.output.json(&json!({"id": id, "asked": true}))?;
        } else {
            app.output
                .note(&format!("requested the cancellation of job {id}"));
        }
    }
    Ok(Exit::Success)
}
