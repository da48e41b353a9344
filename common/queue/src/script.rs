//! The Lua scripts, embedded in the program, and the calls of them.
//!
//! A script is put together from the library (`lua/lib/`), in the order in which the macro
//! `scripts` names its files, and from its own file in `lua/scripts/`.
//!
//! A script is called by the hash of its content. So a worker runs only the scripts that it was
//! built with, and an old script cannot replace a newer one. Redis forgets scripts when it
//! restarts; then the call sends the text again.

use std::sync::LazyLock;
use std::time::Duration;

use redis::{Arg, Cmd, ErrorKind, ServerErrorKind, ToRedisArgs, Value};

use crate::QueueError;
use crate::blocking::BlockingConnection;
use crate::connection::SharedConnection;

/// Maximum number of jobs, leases or classes in one call of a script, so that no call blocks Redis
/// for long.
pub(crate) const SCRIPT_BATCH: usize = 64;

/// A Lua script.
#[derive(Debug)]
pub(crate) struct Script {
    name: &'static str,
    text: &'static str,
    sha: LazyLock<String>,
}

/// Text between the library and a script: none in a normal build.
#[cfg(not(sandhog_test_no_fence))]
macro_rules! amendment {
    ($file:tt) => {
        ""
    };
}

/// In a build that exists to make a test fail, settlements are not fenced. This is a `cfg` and not
/// a cargo feature, because `--all-features` would switch a feature on.
#[cfg(sandhog_test_no_fence)]
macro_rules! amendment {
    ("finish") => {
        include_str!("lua/scripts/no_fence.lua")
    };
    ($file:tt) => {
        ""
    };
}

macro_rules! scripts {
    ($( $(#[$doc:meta])* $constant:ident = $file:tt $(with [$($part:tt),+])?; )*) => {
        $(
            $(#[$doc])*
            pub(crate) static $constant: Script = {
                const TEXT: &str = concat!(
                    include_str!("lua/lib/constants.lua"),
                    "return (function()\n",
                    include_str!("lua/lib/job.lua"),
                    include_str!("lua/lib/tickets.lua"),
                    include_str!("lua/lib/lease.lua"),
                    include_str!("lua/lib/fairness.lua"),
                    include_str!("lua/lib/ready_set.lua"),
                    include_str!("lua/lib/writes.lua"),
                    $( $( include_str!(concat!("lua/lib/", $part, ".lua")), )+ )?
                    amendment!($file),
                    include_str!(concat!("lua/scripts/", $file, ".lua")),
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

/// Declares scripts that use nothing of the library except its constants. For them, building the
/// library's functions would cost more than it saves.
macro_rules! bare_scripts {
    ($( $(#[$doc:meta])* $constant:ident = $file:tt; )*) => {
        $(
            $(#[$doc])*
            pub(crate) static $constant: Script = {
                const TEXT: &str = concat!(
                    include_str!("lua/lib/constants.lua"),
                    include_str!(concat!("lua/scripts/", $file, ".lua")),
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
    /// Delivers intake entries to an admitter.
    INTAKE = "intake";
    /// Chooses the worker that does the next round of maintenance.
    DUTY = "duty";
    /// Writes a worker's report on itself.
    ANNOUNCE = "announce";
    /// Lists the schedules that are due.
    SCHEDULE_DUE = "schedule_due";
}

scripts! {
    /// Turns intake entries into jobs.
    ADMIT = "admit" with ["terminal"];
    /// Deletes intake entries that were requests.
    DONE = "done";
    /// Turns tickets into leases.
    BIND = "bind" with ["terminal", "tenants", "claim"];
    /// Renews leases.
    BEAT = "beat";
    /// Settles leases, and claims the next jobs.
    FINISH = "finish" with ["terminal", "retained", "tenants", "claim", "output"];
    /// Cancels a job.
    CANCEL = "cancel" with ["terminal"];
    /// Appends chunks of output to a log.
    LOG = "log" with ["output"];
    /// Queues dead letters again.
    REQUEUE = "requeue" with ["terminal"];
    /// Drops dead letters.
    DROP = "drop";
    /// Puts tickets back.
    REISSUE = "reissue";
    /// Does a round of maintenance.
    TICK = "tick" with ["terminal", "tenants"];
    /// Writes a schedule.
    SCHEDULE_PUT = "schedule_put";
    /// Submits a schedule's job.
    SCHEDULE_FIRE = "schedule_fire";
    /// Removes, pauses, resumes or postpones a schedule.
    SCHEDULE_CHANGE = "schedule_change";
    /// Lists the running jobs.
    RUNNING = "running";
    /// Chooses the class that a worker should reserve capacity for.
    RESERVE = "reserve" with ["tenants"];
    /// Finds classes with ready jobs that no live worker serves.
    UNROUTABLE = "unroutable" with ["terminal"];
    /// Writes a tenant's settings.
    TENANT_SET = "tenant_set";
    /// Reads a tenant's settings and usage.
    TENANT_LOOK = "tenant_look";
    /// Counts waiting and running jobs.
    SNAPSHOT = "snapshot";
}

/// One call of a script.
pub(crate) struct ScriptCall {
    script: &'static Script,
    /// The call by the script's hash. Large arguments are copied only once, into this command.
    command: Cmd,
}

impl Script {
    /// Returns the name of its file.
    pub(crate) const fn name(&self) -> &'static str {
        self.name
    }

    /// Starts a call in the namespace of this key prefix.
    pub(crate) fn call(&'static self, prefix: &str) -> ScriptCall {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&*self.sha).arg(1).arg(prefix);
        ScriptCall {
            script: self,
            command,
        }
    }
}

impl ScriptCall {
    /// Adds an argument.
    pub(crate) fn arg(mut self, argument: impl ToRedisArgs) -> Self {
        self.push(argument);
        self
    }

    /// Adds an argument.
    pub(crate) fn push(&mut self, argument: impl ToRedisArgs) {
        self.command.arg(argument);
    }

    /// Runs the call, and repeats it after a broken connection. Every script except `log` is safe
    /// to repeat.
    pub(crate) async fn run(&self, connection: &SharedConnection) -> Result<Value, QueueError> {
        let loaded = connection
            .run_repeatable(self.script.name, &self.command)
            .await;
        match loaded {
            Err(error) if is_unknown(&error) => {
                connection
                    .run_repeatable(self.script.name, &self.by_text())
                    .await
            }
            other => other,
        }
    }

    /// Runs the call once.
    pub(crate) async fn run_once(
        &self,
        connection: &SharedConnection,
    ) -> Result<Value, QueueError> {
        let loaded = connection.run_once(self.script.name, &self.command).await;
        match loaded {
            Err(error) if is_unknown(&error) => {
                connection.run_once(self.script.name, &self.by_text()).await
            }
            other => other,
        }
    }

    /// Runs the call once, on a reader's connection. With `wait`, first sends that command, whose
    /// answer is suppressed and which may block for the given time.
    pub(crate) async fn run_after(
        &self,
        blocking: &mut BlockingConnection,
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

    /// Returns the call with the script's text, which also loads the script. It is one command, so
    /// Redis cannot forget the script in between.
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
