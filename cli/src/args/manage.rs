//! Arguments of the commands that do not create jobs.

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
    after_help = "For one job, this command prints the job's output and exits with its exit code, \
        as `run` does. For several jobs, it prints one line for each job that has ended. It then \
        exits with 0 if all jobs succeeded, with 66 if one of them is unknown, and otherwise \
        with 1."
)]
pub(crate) struct WaitArgs {
    /// Ids of the jobs; `-` reads ids from standard input, one on each line
    #[arg(required_unless_present = "reply", value_name = "ID")]
    pub(crate) ids: Vec<JobId>,
    /// Read results from this reply stream: those of the given jobs, or all results if no job is
    /// given
    #[arg(long, value_name = "NAME")]
    pub(crate) reply: Option<ReplyName>,
    /// Stop after this many results of the reply stream; results that the stream no longer holds
    /// count too
    #[arg(long, value_name = "N", requires = "reply", conflicts_with = "ids")]
    pub(crate) count: Option<u64>,
    /// Wait at most this long in total [default: no limit]
    #[arg(long, short, value_name = "DURATION", value_parser = quantity::span)]
    pub(crate) timeout: Option<Millis>,
    /// Also print the value, as JSON after the program's output
    #[arg(long)]
    pub(crate) value: bool,
}

/// `sandhog logs`.
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Id of the job
    #[arg(value_name = "ID")]
    pub(crate) id: JobId,
    /// Follow the output until the job ends
    #[arg(long, short)]
    pub(crate) follow: bool,
}

/// `sandhog cancel`.
#[derive(Debug, Args)]
pub(crate) struct CancelArgs {
    /// Ids of the jobs
    #[arg(required = true, value_name = "ID")]
    pub(crate) ids: Vec<JobId>,
}

/// `sandhog status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Id of a job [default: the whole queue]
    #[arg(value_name = "ID")]
    pub(crate) id: Option<JobId>,
}

/// `sandhog top`.
#[derive(Debug, Args)]
#[command(
    after_help = "Keys: q quit, s sort running jobs, r reverse the order, / filter, Esc show all, \
        p freeze the screen, arrows scroll.\n\n\
        Without a terminal, this command prints the tables once, $COLUMNS characters wide, and \
        exits."
)]
pub(crate) struct TopArgs {
    /// Time between two refreshes
    #[arg(
        long,
        short,
        value_name = "DURATION",
        default_value = "1s",
        value_parser = quantity::interval
    )]
    pub(crate) interval: Millis,
    /// Print the tables once and exit
    #[arg(long)]
    pub(crate) once: bool,
}

/// `sandhog worker` and `sandhog up`.
#[derive(Debug, Args)]
#[command(
    after_help = "After SIGTERM or Ctrl-C the worker claims no more jobs, waits up to \
        worker.grace_ms for the running ones, and then returns the remaining ones to the queue. A \
        second signal ends the wait."
)]
pub(crate) struct WorkerArgs {
    /// Number of jobs that run at the same time [default: one for each core]
    #[arg(long, value_name = "N")]
    pub(crate) slots: Option<NonZeroU32>,
    /// Tags that this worker offers, separated by commas [default: cpu]
    #[arg(long, value_name = "TAGS")]
    pub(crate) tags: Option<String>,
}

impl WorkerArgs {
    /// Returns the flags that change settings.
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
    /// Run the check of each image in a real sandbox
    Check(ImageNames),
}

/// `sandhog images list`.
#[derive(Debug, Args)]
pub(crate) struct ImagesListArgs {
    /// The names of the images.
    #[command(flatten)]
    pub(crate) names: ImageNames,
    /// List the Python packages of each image instead, as a sandbox of the image sees them
    #[arg(long)]
    pub(crate) packages: bool,
}

/// `sandhog images build`.
#[derive(Debug, Args)]
pub(crate) struct ImagesBuildArgs {
    /// Names of images, or paths of their folders, such as ./geo [default: all images in
    /// sandbox.images_dir]
    #[arg(value_name = "NAME|PATH")]
    pub(crate) images: Vec<String>,
    /// Also rebuild images that are up to date
    #[arg(long)]
    pub(crate) force: bool,
    /// Show everything the build prints
    #[arg(long, short)]
    pub(crate) verbose: bool,
}

/// The names of the images.
#[derive(Debug, Args)]
pub(crate) struct ImageNames {
    /// Names of images [default: all]
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<ImageName>,
}

/// `sandhog config`.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Show the value of every setting
    Show(ConfigShowArgs),
    /// List every setting with its variable, default and meaning
    Keys,
}

/// `sandhog config show`.
#[derive(Debug, Args)]
pub(crate) struct ConfigShowArgs {
    /// Also show where each value comes from
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

/// `sandhog redis-guard`: for internal use; this program starts itself with it.
#[derive(Debug, Args)]
pub(crate) struct GuardArgs {
    /// Process id of the parent; the server ends when the parent does
    #[arg(long)]
    pub(crate) parent: u32,
    /// The server and its arguments
    #[arg(last = true, required = true)]
    pub(crate) argv: Vec<String>,
}
