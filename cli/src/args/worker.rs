//! Arguments of `sandhog worker` and `sandhog up`, and of the guard of a private Redis.

use std::num::NonZeroU32;

use clap::Args;
use sandhog_config::Flag;

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
