//! Everything but making jobs, as typed.

use std::num::NonZeroU32;

use clap::{Args, Subcommand};
use clap_complete::Shell;
use sandhog_common::config::Flag;
use sandhog_common::id::{ImageName, JobId, ReplyName};
use sandhog_common::units::Millis;

use crate::quantity;

/// `sandhog wait`.
#[derive(Debug, Args)]
#[command(
    after_help = "For one job this prints its output and ends with its exit code, as `run` does. For more it prints a line for each as it ends, and ends with 0 if all succeeded, 66 if one is unknown and else 1."
)]
pub(crate) struct WaitArgs {
    /// The jobs; `-` reads ids from standard input, a line each
    #[arg(required_unless_present = "reply", value_name = "ID")]
    pub(crate) ids: Vec<JobId>,
    /// Read the results from this reply stream: of the jobs, or without any of all that come
    #[arg(long, value_name = "NAME")]
    pub(crate) reply: Option<ReplyName>,
    /// End after this many results of the reply stream, those that left it included
    #[arg(long, value_name = "N", requires = "reply", conflicts_with = "ids")]
    pub(crate) count: Option<u64>,
    /// Wait at most this long altogether [default: for ever]
    #[arg(long, short, value_name = "SPAN", value_parser = quantity::span)]
    pub(crate) timeout: Option<Millis>,
    /// Print the value too, as JSON after the program's output
    #[arg(long)]
    pub(crate) value: bool,
}

/// `sandhog logs`.
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// The job
    #[arg(value_name = "ID")]
    pub(crate) id: JobId,
    /// Follow the output until the job ends
    #[arg(long, short)]
    pub(crate) follow: bool,
}

/// `sandhog cancel`.
#[derive(Debug, Args)]
pub(crate) struct CancelArgs {
    /// The jobs
    #[arg(required = true, value_name = "ID")]
    pub(crate) ids: Vec<JobId>,
}

/// `sandhog status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// A job [default: the whole queue]
    #[arg(value_name = "ID")]
    pub(crate) id: Option<JobId>,
}

/// `sandhog top`.
#[derive(Debug, Args)]
#[command(
    after_help = "Keys: q quit, s sort running jobs, r turn the order round, / filter, Esc show all, p freeze the screen, arrows scroll.\n\nWithout a terminal it prints the tables once, as wide as $COLUMNS says, and ends."
)]
pub(crate) struct TopArgs {
    /// Time between two refreshes
    #[arg(long, short, value_name = "SPAN", default_value = "1s", value_parser = quantity::interval)]
    pub(crate) interval: Millis,
    /// Print the tables once and end
    #[arg(long)]
    pub(crate) once: bool,
}

/// `sandhog worker` and `sandhog up`.
#[derive(Debug, Args)]
#[command(
    after_help = "SIGTERM or Ctrl-C stops claiming, waits up to worker.grace_ms for running jobs, then gives back the rest. A second one ends the wait."
)]
pub(crate) struct WorkerArgs {
    /// Jobs at once [default: one for each core]
    #[arg(long, value_name = "N")]
    pub(crate) slots: Option<NonZeroU32>,
    /// Tags that this worker offers, separated by commas [default: cpu]
    #[arg(long, value_name = "TAGS")]
    pub(crate) tags: Option<String>,
}

impl WorkerArgs {
    /// The flags that are settings.
    #[must_use]
    pub(crate) fn flags(&self) -> Vec<Flag> {
        let slots = self.slots.map(|slots| slots.to_string());
        [
            ("worker.slots", slots, "--slots"),
            ("worker.tags", self.tags.clone(), "--tags"),
        ]
        .into_iter()
        .filter_map(|(key, value, name)| {
            Some(Flag {
                key: key.to_owned(),
                value: value?,
                name: name.to_owned(),
            })
        })
        .collect()
    }
}

/// `sandhog images`.
#[derive(Debug, Subcommand)]
pub(crate) enum ImagesCommand {
    /// Build images that are missing or out of date
    Build(ImagesBuildArgs),
    /// List the images, built and not built
    List(ImagesListArgs),
    /// Run each image's own check in a real sandbox
    Check(ImageNames),
}

/// `sandhog images list`.
#[derive(Debug, Args)]
pub(crate) struct ImagesListArgs {
    /// Which images.
    #[command(flatten)]
    pub(crate) names: ImageNames,
    /// List the Python packages of each instead, as a sandbox of it has them
    #[arg(long)]
    pub(crate) packages: bool,
}

/// `sandhog images build`.
#[derive(Debug, Args)]
pub(crate) struct ImagesBuildArgs {
    /// Images by name, or their folders by path: ./geo [default: all of sandbox.images_dir]
    #[arg(value_name = "NAME|PATH")]
    pub(crate) images: Vec<String>,
    /// Build again what is current
    #[arg(long)]
    pub(crate) force: bool,
    /// Show everything the build prints
    #[arg(long, short)]
    pub(crate) verbose: bool,
}

/// Which images.
#[derive(Debug, Args)]
pub(crate) struct ImageNames {
    /// Images [default: all]
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<ImageName>,
}

/// `sandhog config`.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Show every setting's value
    Show(ConfigShowArgs),
    /// List every setting with its variable, default and meaning
    Keys,
}

/// `sandhog config show`.
#[derive(Debug, Args)]
pub(crate) struct ConfigShowArgs {
    /// Show where each value comes from
    #[arg(long)]
    pub(crate) origin: bool,
}

/// `sandhog completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}

/// `sandhog redis-guard`: used by this program on itself.
#[derive(Debug, Args)]
pub(crate) struct GuardArgs {
    /// The process to end with
    #[arg(long)]
    pub(crate) parent: u32,
    /// The server and its arguments
    #[arg(last = true, required = true)]
    pub(crate) argv: Vec<String>,
}
