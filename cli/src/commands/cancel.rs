//! `sandhog cancel`: requests the cancellation of jobs. A job's result shows whether it was
//! cancelled.

use serde_json::json;

use crate::app::App;
use crate::args::CancelArgs;
use crate::exit::Exit;
use crate::fault::Fault;

/// Requests the cancellation of each job. A job that has already ended keeps its result.
pub(crate) async fn cancel(app: &App, args: &CancelArgs) -> Result<Exit, Fault> {
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
