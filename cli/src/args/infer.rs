//! Arguments of `sandhog infer`.

use clap::Args;
use sandhog_core::id::ImageName;
use sandhog_core::units::Millis;

use super::job_options::RoutingArgs;
use crate::quantity;

/// `sandhog infer`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
        sandhog infer embed --text 'a job queue'\n  \
        sandhog infer smollm2 --input '{\"prompt\": \"Once upon a time\", \"max_tokens\": 32}' \
        --stream\n  \
        sandhog infer smollm2 --path /v1/chat/completions --input @chat.json")]
pub(crate) struct InferArgs {
    /// Image that contains the model
    #[arg(value_name = "IMAGE")]
    pub(crate) image: ImageName,
    /// Input for the model as JSON, or @FILE to read it from a file
    #[arg(long, value_name = "JSON|@FILE", required_unless_present = "text")]
    pub(crate) input: Option<String>,
    /// Input for the model as plain text
    #[arg(long, value_name = "TEXT", conflicts_with = "input")]
    pub(crate) text: Option<String>,
    /// Method of a Python model to call [default: set by the image]
    #[arg(long, value_name = "NAME")]
    pub(crate) method: Option<String>,
    /// Path to call on an HTTP model server [default: set by the image]
    #[arg(long, value_name = "PATH", conflicts_with = "method")]
    pub(crate) path: Option<String>,
    /// Print the answer while the model generates it, instead of as JSON at the end
    #[arg(long)]
    pub(crate) stream: bool,
    /// Time limit for the answer, counted from the call of the model, such as 500ms, 30s or 5m
    #[arg(long, short, value_name = "DURATION", value_parser = quantity::parse_duration)]
    pub(crate) timeout: Option<Millis>,
    /// The job's tags, tenant, priority and id.
    #[command(flatten)]
    pub(crate) routing: RoutingArgs,
}
