//! Arguments of `sandhog submit`.

use std::path::PathBuf;

use clap::Args;

use super::job_options::JobOptions;

/// `sandhog submit`.
#[derive(Debug, Args)]
#[command(
    override_usage = "sandhog submit [OPTIONS] FILE [ARGUMENT]...\n       \
        sandhog submit [OPTIONS] --code CODE [-- ARGUMENT...]\n       \
        sandhog submit [OPTIONS] --file JSONL\n       \
        sandhog submit [OPTIONS] -- PROGRAM [ARGUMENT]...",
    after_help = "Each line of --file is a payload, such as \
        {\"image\":\"python\",\"code\":\"print(1)\"}. An optional member \"id\" sets the job's \
        id.\n\n\
        Examples:\n  \
        sandhog submit -c 'print(6*7)'\n  \
        sandhog submit --file jobs.jsonl --tenant nightly"
)]
pub(crate) struct SubmitArgs {
    /// The job to submit.
    #[command(flatten)]
    pub(crate) options: JobOptions,
    /// Submit many jobs from a file with one JSON payload on each line; - is standard input
    #[arg(
        long = "file",
        value_name = "JSONL",
        group = "what",
        conflicts_with_all = ["id", "source", "code", "argv"]
    )]
    pub(crate) jobs: Option<PathBuf>,
}
