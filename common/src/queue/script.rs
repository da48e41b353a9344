//! The Lua scripts, embedded, and how one is run.
//!
//! A script is called by its content's hash, so a worker only ever runs the scripts it was built with, and an old
//! one cannot replace a newer one's. Redis forgets scripts when it restarts; whoever meets that sends the text again.

use std::sync::LazyLock;
use std::time::Duration;

use redis::{Arg, Cmd, ErrorKind, ServerErrorKind, ToRedisArgs, Value};

use super::QueueError;
use super::blocking::Blocking;
use super::link::Link;

/// The most jobs, leases or classes one call of a script handles, so that no call holds Redis up for long.
pub(super) const MOST: usize = 64;

/// One script.
#[derive(Debug)]
pub(super) struct Script {
    name: &'static str,
    text: &'static str,
    sha: LazyLock<String>,
}

/// What stands between the prelude and a script: nothing.
#[cfg(not(sandhog_test_no_fence))]
macro_rules! amendment {
    ($file:tt) => {
        ""
    };
}

/// In a build that exists to fail a test, settling does without its fence. A cargo feature could be switched on by
/// `--all-features`; this cannot.
#[cfg(sandhog_test_no_fence)]
macro_rules! amendment {
    ("finish") => {
        include_str!("scripts/no_fence.lua")
    };
    ($file:tt) => {
        ""
    };
}

macro_rules! scripts {
    ($( $(#[$doc:meta])* $constant:ident = $file:tt $(with [$($part:tt),+])?; )*) => {
        $(
            $(#[$doc])*
            pub(super) static $constant: Script = {
                const TEXT: &str = concat!(
                    include_str!("scripts/ground.lua"),
                    "return (function()\n",
                    include_str!("scripts/prelude.lua"),
                    $( $( include_str!(concat!("scripts/", $part, ".lua")), )+ )?
                    amendment!($file),
                    include_str!(concat!("scripts/", $file, ".lua")),
                    "\nend)()\n",
                );
                Script {
                    name: $file,
                    text: TEXT,
                    sha: LazyLock::new(|| redis::Script::new(TEXT).get_hash().to_owned()),
                }
            };
        )*
    };
}

/// Scripts that need nothing of the prelude, whose functions cost more to build than they take.
macro_rules! bare_scripts {
    ($( $(#[$doc:meta])* $constant:ident = $file:tt; )*) => {
        $(
            $(#[$doc])*
            pub(super) static $constant: Script = {
                const TEXT: &str = concat!(
                    include_str!("scripts/ground.lua"),
                    include_str!(concat!("scripts/", $file, ".lua")),
                );
                Script {
                    name: $file,
                    text: TEXT,
                    sha: LazyLock::new(|| redis::Script::new(TEXT).get_hash().to_owned()),
                }
            };
        )*
    };
}

bare_scripts! {
    /// Intake entries are handed to an admitter.
    INTAKE = "intake";
    /// One of a namespace's workers does the next round of upkeep.
    DUTY = "duty";
    /// A worker says who it is.
    ANNOUNCE = "announce";
    /// Schedules that are due.
    SCHEDULE_DUE = "schedule_due";
}

scripts! {
    /// Intake entries become jobs.
    ADMIT = "admit" with ["ending"];
    /// Intake entries that were requests are dropped.
    DONE = "done";
    /// A ticket becomes a lease.
    BIND = "bind" with ["ending", "tenants", "claim"];
    /// Leases are renewed.
    BEAT = "beat";
    /// Leases are settled, and the next ones taken.
    FINISH = "finish" with ["ending", "retained", "tenants", "claim", "output"];
    /// A job is cancelled.
    CANCEL = "cancel" with ["ending"];
    /// Chunks of output are appended.
    LOG = "log" with ["output"];
    /// Dead letters are queued again.
    REQUEUE = "requeue" with ["ending"];
    /// Dead letters are dropped.
    DROP = "drop";
    /// Tickets are put back.
    REISSUE = "reissue";
    /// Upkeep.
    TICK = "tick" with ["ending", "tenants"];
    /// A schedule is written.
    SCHEDULE_PUT = "schedule_put";
    /// A schedule's job is submitted.
    SCHEDULE_FIRE = "schedule_fire";
    /// A schedule is removed, paused, resumed or postponed.
    SCHEDULE_CHANGE = "schedule_change";
    /// What runs right now.
    RUNNING = "running";
    /// A worker asks whom to keep room for.
    RESERVE = "reserve" with ["tenants"];
    /// Work that nobody will do.
    UNROUTABLE = "unroutable" with ["ending"];
    /// What a tenant may do is set.
    TENANT_SET = "tenant_set";
    /// What a tenant may do and has.
    TENANT_LOOK = "tenant_look";
    /// What waits and what runs.
    SNAPSHOT = "snapshot";
}

/// One call of a script.
pub(super) struct Call {
    script: &'static Script,
    /// By the script's hash; its arguments may be large, so they are copied here once.
    command: Cmd,
}

impl Script {
    /// Its file's name.
    pub(super) const fn name(&self) -> &'static str {
        self.name
    }

    /// A call in the namespace of this key prefix.
    pub(super) fn call(&'static self, prefix: &str) -> Call {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&*self.sha).arg(1).arg(prefix);
        Call {
            script: self,
            command,
        }
    }
}

impl Call {
    /// Adds an argument.
    pub(super) fn arg(mut self, argument: impl ToRedisArgs) -> Self {
        self.push(argument);
        self
    }

    /// Adds an argument.
    pub(super) fn push(&mut self, argument: impl ToRedisArgs) {
        self.command.arg(argument);
    }

    /// Runs it, again after a broken connection: every script but `log` may be repeated without harm.
    pub(super) async fn run(&self, link: &Link) -> Result<Value, QueueError> {
        let loaded = link.repeatable(self.script.name, &self.command).await;
        match loaded {
            Err(error) if is_unknown(&error) => {
                link.repeatable(self.script.name, &self.by_text()).await
            }
            other => other,
        }
    }

    /// Runs it once.
    pub(super) async fn run_once(&self, link: &Link) -> Result<Value, QueueError> {
        let loaded = link.once(self.script.name, &self.command).await;
        match loaded {
            Err(error) if is_unknown(&error) => link.once(self.script.name, &self.by_text()).await,
            other => other,
        }
    }

    /// Runs it on a reader's connection, first waiting there for `wait`, if there is one: a command
    /// whose answer is left out, and how long it may block. It is run once.
    pub(super) async fn run_after(
        &self,
        blocking: &mut Blocking,
        wait: Option<(Cmd, Duration)>,
    ) -> Result<Value, QueueError> {
        let name = self.script.name;
        let loaded = match wait {
            Some((wait, time)) => {
                blocking
                    .wait_unanswered(name, &wait, &self.command, time)
                    .await
            }
            None => blocking.ask(name, &self.command).await,
        };
        match loaded {
            Err(error) if is_unknown(&error) => blocking.ask(name, &self.by_text()).await,
            other => other,
        }
    }

    /// With the whole text, which also loads it: one step, so nothing can be forgotten in between.
    fn by_text(&self) -> Cmd {
        let mut command = redis::cmd("EVAL");
        command.arg(self.script.text);
        for argument in self.command.args_iter().skip(2) {
            if let Arg::Simple(bytes) = argument {
                command.arg(bytes);
            }
        }
        command
    }
}

fn is_unknown(error: &QueueError) -> bool {
    matches!(
        error,
        QueueError::Command { source, .. }
            if matches!(source.kind(), ErrorKind::Server(ServerErrorKind::NoScript))
    )
}
