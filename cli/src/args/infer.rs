//! What a model is asked, as typed.

use clap::Args;
use sandhog_common::id::ImageName;
use sandhog_common::units::Millis;

use super::job::RoutingArgs;
use crate::quantity;

/// `sandhog infer`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  sandhog infer embed --text 'a job queue'\n  sandhog infer smollm2 --input '{\"prompt\": \"Once upon a time\", \"max_tokens\": 32}' --stream\n  sandhog infer smollm2 --path /v1/chat/completions --input @chat.json"
)]
pub(crate) struct InferArgs {
    /// The image that has the model
    #[arg(value_name = "IMAGE")]
    pub(crate) image: ImageName,
    /// Input of the model as JSON, or @FILE
    #[arg(long, value_name = "JSON|@FILE", required_unless_present = "text")]
    pub(crate) input: Option<String>,
    /// Input of the model as plain text
    #[arg(long, value_name = "TEXT", conflicts_with = "input")]
    pub(crate) text: Option<String>,
    /// The method of a Python model [default: the image's own]
    #[arg(long, value_name = "NAME")]
    pub(crate) method: Option<String>,
    /// The path of an HTTP model server [default: the image's own]
    #[arg(long, value_name = "PATH", conflicts_with = "method")]
    pub(crate) path: Option<String>,
    /// Print the answer while the model writes it, not as JSON at the end
    #[arg(long)]
    pub(crate) stream: bool,
    /// Time limit of the answer, from the call of the model, such as 500ms, 30s or 5m
    #[arg(long, short, value_name = "SPAN", value_parser = quantity::span)]
    pub(crate) timeout: Option<Millis>,
    /// Whose it is and who may answer it.
    #[command(flatten)]
    pub(crate) routing: RoutingArgs,
}
