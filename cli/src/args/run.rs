//! Arguments of `sandhog run`.

use std::path::PathBuf;

use clap::Args;

use super::job_options::JobOptions;

/// `sandhog run`.
#[derive(Debug, Args)]
#[command(
    override_usage = "sandhog run [OPTIONS] FILE [ARGUMENT]...\n       \
        sandhog run [OPTIONS] --code CODE [-- ARGUMENT...]\n       \
        sandhog run [OPTIONS] -- PROGRAM [ARGUMENT]...",
    after_help = "Examples:\n  \
        sandhog run -c 'print(6*7)'\n  \
        sandhog run script.py --input '{\"n\": 3}' --value\n  \
        sandhog run --timeout 5s --memory 64MiB -- sort -n"
)]
pub(crate) struct RunArgs {
    /// The job to run.
    #[command(flatten)]
    pub(crate) options: JobOptions,
    /// Also print the value of main() or of the last expression, as JSON after the program's output
    #[arg(long)]
    pub(crate) value: bool,
    /// Folder to write the files of --fetch and the displays to; displays are named display-1.png
    /// and so on [default: fetched files go to the current folder, displays are not written]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) save: Option<PathBuf>,
    /// Overwrite existing files; without this option they are left unchanged and the command exits
    /// with 73
    #[arg(long)]
    pub(crate) force: bool,
}
