//! `sandhog cancel`: asks; the answer comes as the job's result.

use serde_json::json;

use crate::app::App;
use crate::args::CancelArgs;
use crate::exit::Exit;
use crate::fault::Fault;

/// Asks for each job to be cancelled. A job that has ended keeps its result.
pub(crate) async fn cancel(app: &App, args: &CancelArgs) -> Result<Exit, Fault> {
    let client = app.client().await?;
    for id in &args.ids {
        client.cancel(id).await?;
        if app.output.is_json() {
            app.output.json(&json!({"id": id, "asked": true}))?;
        } else {
            app.output.note(&format!("asked for {id} to be cancelled"));
        }
    }
    Ok(Exit::Success)
}
