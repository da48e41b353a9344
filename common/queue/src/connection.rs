//! The shared connection for all commands that do not block.
//!
//! One multiplexed connection serves all callers. When it breaks, or its server no longer holds the
//! queue, one attempt to reconnect serves all callers too. A command that is safe to repeat is
//! repeated here until the response timeout has passed. Any command may be repeated that a server
//! rejected before it ran.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use redis::{Arg, Cmd, Pipeline, RedisError, Value};
use tokio::time::Instant;

use crate::QueueError;
use crate::redis_error::{self, RedisErrorRemedy as Remedy};
use crate::route::{Node, Route, Unreachable};
use sandhog_config::RedisSettings;

/// Longest wait before a command is retried. The wait is a random part of it, so that clients that
/// lost the same server do not all reconnect at the same moment.
const RETRY_DELAY_MAX: Duration = Duration::from_millis(200);

/// Maximum number of redirections to another node that a command that is not safe to repeat
/// follows.
const REDIRECTION_LIMIT: usize = 5;

/// Writes that callers rely on: where `redis.wait_replicas` is set, they succeed only once enough
/// replicas have them.
const REPLICATED_COMMANDS: [&str; 2] = ["XADD", "finish"];

/// One multiplexed connection that reconnects by itself. It can also open further connections.
#[derive(Debug, Clone)]
pub(crate) struct SharedConnection {
    inner: Arc<ConnectionState>,
}

#[derive(Debug)]
struct ConnectionState {
    route: Arc<Route>,
    current: Mutex<ConnectAttempt>,
    response_timeout: Duration,
    replicas: u32,
}

/// One attempt to connect, and its result.
#[derive(Debug, Clone)]
struct ConnectAttempt {
    number: u64,
    node: Shared<BoxFuture<'static, Result<Node, Unreachable>>>,
}

/// Reason why a command has no answer.
enum CommandFailure {
    /// The server was not reached.
    Unreachable(Unreachable),
    /// The server answered with an error, or the connection broke.
    Failed(RedisError),
    /// The command ran, but too few replicas have its writes.
    NotReplicated(u32),
}

impl CommandFailure {
    /// Returns the reaction to the failure.
    fn remedy(&self) -> Remedy<'_> {
        match self {
            Self::Unreachable(Unreachable::Server { source, .. }) => {
                match redis_error::remedy(source) {
                    Remedy::Final => Remedy::Final,
                    _ => Remedy::OtherNode,
                }
            }
            Self::Unreachable(Unreachable::NoMaster { .. }) => Remedy::OtherNode,
            Self::Failed(source) => redis_error::remedy(source),
            Self::NotReplicated(_) => Remedy::Final,
        }
    }
}

impl SharedConnection {
    /// Connects, with a single attempt: a server that cannot be reached is an error at once,
    /// without retries. `key` is one of the queue's keys.
    pub(crate) async fn connect(settings: &RedisSettings, key: &str) -> Result<Self, QueueError> {
        let route = Arc::new(Route::new(settings, key)?);
        let connection = Self {
            inner: Arc::new(ConnectionState {
                current: Mutex::new(ConnectAttempt::new(&route, 0)),
                route,
                response_timeout: settings.response_timeout_ms.duration(),
                replicas: settings.wait_replicas,
            }),
        };
        connection.node().await?;
        Ok(connection)
    }

    /// Opens a separate connection, for a reader that blocks. The caller sets the response timeout
    /// of each command.
    pub(crate) async fn open_dedicated(&self) -> Result<Node, QueueError> {
        Ok(self.inner.route.node().await?)
    }

    /// Records that the keys are on the node at `to`, as the node at `from` reports.
    pub(crate) fn note_moved(&self, from: &str, to: &str) {
        self.inner.route.note_moved(from, to);
    }

    /// Returns the address of the shared connection, which is opened if there is none.
    pub(crate) async fn address(&self) -> Result<String, QueueError> {
        Ok(self.node().await?.1.address)
    }

    /// Runs a command once. If the connection breaks, it is unknown whether the command ran. If the
    /// keys have moved to another node, the command did not run, and it is run there.
    pub(crate) async fn run_once(
        &self,
        command: &'static str,
        text: &Cmd,
    ) -> Result<Value, QueueError> {
        let mut redirections = 0;
        loop {
            match self.try_run(command, text).await {
                Err(failure)
                    if matches!(failure.remedy(), Remedy::Elsewhere(_))
                        && redirections < REDIRECTION_LIMIT =>
                {
                    redirections += 1;
                }
                settled => return settled.map_err(|failure| self.error(command, failure)),
            }
        }
    }

    /// Runs a command that is safe to repeat. Retries it after a broken connection, until the
    /// response timeout has passed.
    pub(crate) async fn run_repeatable(
        &self,
        command: &'static str,
        text: &Cmd,
    ) -> Result<Value, QueueError> {
        let deadline = Instant::now() + self.inner.response_timeout;
        loop {
            match self.try_run(command, text).await {
                Err(failure) if self.may_retry(command, &failure, deadline).await => {}
                settled => return settled.map_err(|failure| self.error(command, failure)),
            }
        }
    }

    /// Runs many commands in one pipeline, once. Returns the answers in order; the first error is
    /// the error of the whole call.
    pub(crate) async fn run_pipeline(
        &self,
        command: &'static str,
        commands: &Pipeline,
    ) -> Result<Vec<Value>, QueueError> {
        self.try_pipeline(command, commands)
            .await
            .map_err(|failure| self.error(command, failure))
    }

    /// Runs many commands that are safe to repeat in one pipeline. Retries them after a broken
    /// connection.
    pub(crate) async fn run_repeatable_pipeline(
        &self,
        command: &'static str,
        commands: &Pipeline,
    ) -> Result<Vec<Value>, QueueError> {
        let deadline = Instant::now() + self.inner.response_timeout;
        loop {
            match self.try_pipeline(command, commands).await {
                Err(failure) if self.may_retry(command, &failure, deadline).await => {}
                settled => return settled.map_err(|failure| self.error(command, failure)),
            }
        }
    }

    /// Returns whether to retry, after waiting. A command that merely timed out is not retried.
    async fn may_retry(
        &self,
        command: &'static str,
        failure: &CommandFailure,
        deadline: Instant,
    ) -> bool {
        match failure.remedy() {
            Remedy::Final | Remedy::Late => return false,
            Remedy::Elsewhere(_)
            | Remedy::Asking(_)
            | Remedy::OtherNode
            | Remedy::Wait
            | Remedy::Reconnect => {}
        }
        if Instant::now() >= deadline {
            return false;
        }
        tracing::debug!(command, "redis command failed; retrying");
        if !matches!(failure.remedy(), Remedy::Elsewhere(_)) {
            tokio::time::sleep(RETRY_DELAY_MAX.mul_f64(rand::random())).await;
        }
        true
    }

    async fn try_run(&self, command: &'static str, text: &Cmd) -> Result<Value, CommandFailure> {
        if self.wants_replicas(command) {
            let mut single = redis::pipe();
            single.add_command(text.clone());
            return Ok(self
                .try_pipeline(command, &single)
                .await?
                .pop()
                .unwrap_or(Value::Nil));
        }
        let (number, mut node) = self.node().await.map_err(CommandFailure::Unreachable)?;
        let answer = node
            .connection
            .send_packed_command(text)
            .await
            .and_then(Value::extract_error);
        match answer {
            Ok(value) => Ok(value),
            Err(source) => match redis_error::remedy(&source) {
                Remedy::Asking(to) if !is_script(text) => {
                    self.run_asking(&node.address, to, text).await
                }
                _ => Err(self.handle_error(number, &node.address, source)),
            },
        }
    }

    /// Runs a command at the node that is taking over its key.
    ///
    /// Scripts are never run there: a script works on the whole namespace, and a part of it is
    /// still on the old node. Scripts wait until all keys have moved.
    async fn run_asking(&self, from: &str, to: &str, text: &Cmd) -> Result<Value, CommandFailure> {
        let mut node = self
            .inner
            .route
            .node_at(from, to)
            .await
            .map_err(CommandFailure::Unreachable)?;
        let mut both = redis::pipe();
        both.cmd("ASKING");
        both.add_command(text.clone());
        let answer = node.connection.send_packed_commands(&both, 1, 1).await;
        answer
            .and_then(|mut answers| answers.pop().unwrap_or(Value::Nil).extract_error())
            .map_err(CommandFailure::Failed)
    }

    async fn try_pipeline(
        &self,
        command: &'static str,
        commands: &Pipeline,
    ) -> Result<Vec<Value>, CommandFailure> {
        let (number, mut node) = self.node().await.map_err(CommandFailure::Unreachable)?;
        let waits = self.wants_replicas(command);
        let waiting;
        let commands = if waits {
            let mut with_wait = commands.clone();
            with_wait.cmd("WAIT").arg(self.inner.replicas).arg(
                u64::try_from(self.inner.response_timeout.as_millis() / 2).unwrap_or(u64::MAX),
            );
            waiting = with_wait;
            &waiting
        } else {
            commands
        };
        let answers = node
            .connection
            .send_packed_commands(commands, 0, commands.len())
            .await
            .and_then(|answers| answers.into_iter().map(Value::extract_error).collect());
        let mut answers: Vec<Value> =
            answers.map_err(|source| self.handle_error(number, &node.address, source))?;
        if waits {
            let have = match answers.pop() {
                Some(Value::Int(have)) => u32::try_from(have).unwrap_or(0),
                Some(_) | None => 0,
            };
            if have < self.inner.replicas {
                return Err(CommandFailure::NotReplicated(have));
            }
        }
        Ok(answers)
    }

    fn wants_replicas(&self, command: &str) -> bool {
        self.inner.replicas > 0 && REPLICATED_COMMANDS.contains(&command)
    }

    /// Handles an error of the shared connection. If a new connection may help, the next command
    /// opens one.
    fn handle_error(&self, number: u64, address: &str, source: RedisError) -> CommandFailure {
        match redis_error::remedy(&source) {
            Remedy::Elsewhere(to) => {
                self.inner.route.note_moved(address, to);
                self.discard(number);
            }
            Remedy::OtherNode | Remedy::Reconnect | Remedy::Late => self.discard(number),
            Remedy::Asking(_) | Remedy::Wait | Remedy::Final => {}
        }
        CommandFailure::Failed(source)
    }

    /// Returns the shared connection, which is opened if there is none.
    async fn node(&self) -> Result<(u64, Node), Unreachable> {
        let attempt = self.current().clone();
        match attempt.node.await {
            Ok(node) => Ok((attempt.number, node)),
            Err(unreachable) => {
                self.discard(attempt.number);
                Err(unreachable)
            }
        }
    }

    /// Discards the shared connection, unless it has been replaced already.
    fn discard(&self, number: u64) {
        let mut current = self.current();
        if current.number == number {
            *current = ConnectAttempt::new(&self.inner.route, number.wrapping_add(1));
        }
    }

    fn current(&self) -> std::sync::MutexGuard<'_, ConnectAttempt> {
        // The lock guards one assignment, so after a panic it holds the old attempt or the new one.
        self.inner
            .current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self, command: &'static str, failure: CommandFailure) -> QueueError {
        match failure {
            CommandFailure::Unreachable(unreachable) => unreachable.into(),
            CommandFailure::Failed(source) => QueueError::Command { command, source },
            CommandFailure::NotReplicated(have) => QueueError::NotReplicated {
                command,
                have,
                want: self.inner.replicas,
            },
        }
    }
}

impl ConnectAttempt {
    fn new(route: &Arc<Route>, number: u64) -> Self {
        let route = Arc::clone(route);
        Self {
            number,
            node: async move { route.node().await }.boxed().shared(),
        }
    }
}

/// Returns whether a command runs a script or a function.
fn is_script(text: &Cmd) -> bool {
    let Some(Arg::Simple(verb)) = text.args_iter().next() else {
        return false;
    };
    [&b"EVALSHA"[..], b"EVAL", b"FCALL"]
        .iter()
        .any(|script| verb.eq_ignore_ascii_case(script))
}
