//! Connections for commands that block. Each blocking reader has a connection of its own. A wait is
//! ended on the server, with `CLIENT UNBLOCK`, never by dropping the future.
//!
//! A dropped read stays first in the connection's queue of answers, and the job that it receives
//! later would be lost. Therefore a connection whose read was dropped all the same is closed with
//! it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::{Cmd, Pipeline, Value};
use tokio::sync::Notify;

use crate::QueueError;
use crate::connection::SharedConnection;
use crate::redis_error::{self, RedisErrorRemedy as Remedy};
use crate::route::Node;

/// Time beyond its wait after which a blocking command is given up together with its connection.
const RESPONSE_MARGIN: Duration = Duration::from_secs(5);

/// Delay before an unblock is sent again, if it reached the server before the read did.
const UNBLOCK_RETRY_DELAY: Duration = Duration::from_millis(5);

/// Maximum number of redirections to another node that one wait follows.
const REDIRECTION_LIMIT: usize = 5;

/// The connection of one blocking reader.
#[derive(Debug)]
pub(crate) struct BlockingConnection {
    shared: SharedConnection,
    node: Option<Node>,
    state: Arc<ReaderState>,
}

#[derive(Debug, Default)]
struct ReaderState {
    /// The server, and the id of the connection on it. `None` while there is no connection, or if
    /// the user may not query the id.
    client: Mutex<Option<(String, i64)>>,
    /// True while the reader is inside a call.
    in_call: AtomicBool,
    /// True while a request to end the call is pending.
    unblock_requested: AtomicBool,
    /// Notified when `unblock_requested` is set and when a call ends.
    changed: Notify,
}

/// Marks a reader's call as running. Its drop marks the end, also when the call is dropped.
#[derive(Debug)]
pub(crate) struct CallGuard(Arc<ReaderState>);

impl Drop for CallGuard {
    fn drop(&mut self) {
        self.0.in_call.store(false, Ordering::SeqCst);
        self.0.changed.notify_waiters();
    }
}

impl BlockingConnection {
    /// Opens the connection.
    pub(crate) async fn open(shared: &SharedConnection) -> Result<Self, QueueError> {
        let mut blocking = Self {
            shared: shared.clone(),
            node: None,
            state: Arc::default(),
        };
        blocking.node = Some(blocking.connect().await?);
        Ok(blocking)
    }

    /// Returns the handle that ends waits.
    pub(crate) fn unblocker(&self) -> Unblocker {
        Unblocker {
            shared: self.shared.clone(),
            state: Arc::clone(&self.state),
        }
    }

    /// Marks the beginning of a call that may wait.
    pub(crate) fn enter(&self) -> CallGuard {
        self.state.in_call.store(true, Ordering::SeqCst);
        CallGuard(Arc::clone(&self.state))
    }

    /// Returns whether a request to end the call is pending, and clears the request.
    pub(crate) fn is_unblocked(&self) -> bool {
        self.state.unblock_requested.swap(false, Ordering::SeqCst)
    }

    /// Runs a command that the server may answer only after `wait`. Returns nil when the wait was
    /// ended or nothing came.
    pub(crate) async fn wait(
        &mut self,
        command: &'static str,
        text: &Cmd,
        wait: Duration,
    ) -> Result<Value, QueueError> {
        let mut single = redis::pipe();
        single.add_command(text.clone());
        self.send(command, &single, wait).await
    }

    /// Runs `wait`, which may block for `time` and whose answer the server suppresses, and then
    /// `text`, whose answer is returned. An error of `wait` is suppressed too.
    pub(crate) async fn wait_unanswered(
        &mut self,
        command: &'static str,
        wait: &Cmd,
        text: &Cmd,
        time: Duration,
    ) -> Result<Value, QueueError> {
        let mut commands = redis::pipe();
        commands.cmd("CLIENT").arg("REPLY").arg("SKIP");
        commands.add_command(wait.clone());
        commands.add_command(text.clone());
        let answer = self.send(command, &commands, time).await;
        if let Err(QueueError::Command { source, .. }) = &answer
            && redis_error::is_forbidden(source)
        {
            // If the user may not use CLIENT REPLY, the server sends three answers.
            self.node = None;
            self.state.mark_disconnected();
        }
        answer
    }

    /// Sends commands of which only the last is answered, after `wait` at the latest.
    async fn send(
        &mut self,
        command: &'static str,
        text: &Pipeline,
        wait: Duration,
    ) -> Result<Value, QueueError> {
        let mut redirections = 0;
        loop {
            // Taken out of `self`, so that a dropped call also drops its connection.
            let mut node = match self.node.take() {
                Some(node) => node,
                None => self.connect().await?,
            };
            node.connection.set_response_timeout(wait + RESPONSE_MARGIN);
            let answer = node
                .connection
                .send_packed_commands(text, 0, 1)
                .await
                .and_then(|mut answers| answers.pop().unwrap_or(Value::Nil).extract_error());
            let source = match answer {
                Ok(value) => {
                    self.node = Some(node);
                    return Ok(value);
                }
                Err(source) => source,
            };
            match redis_error::remedy(&source) {
                // The server ended the wait: it has become a replica, or the key was deleted.
                // Nothing came.
                Remedy::OtherNode if redis_error::is_unblocked(&source) => {
                    self.state.mark_disconnected();
                    return Ok(Value::Nil);
                }
                Remedy::Elsewhere(to) => {
                    self.shared.note_moved(&node.address, to);
                    self.state.mark_disconnected();
                    redirections += 1;
                    if redirections < REDIRECTION_LIMIT {
                        continue;
                    }
                }
                Remedy::OtherNode | Remedy::Reconnect | Remedy::Late => {
                    self.state.mark_disconnected()
                }
                Remedy::Asking(_) | Remedy::Wait | Remedy::Final => self.node = Some(node),
            }
            return Err(QueueError::Command { command, source });
        }
    }

    /// Runs a command that the server answers immediately.
    pub(crate) async fn ask(
        &mut self,
        command: &'static str,
        text: &Cmd,
    ) -> Result<Value, QueueError> {
        self.wait(command, text, Duration::ZERO).await
    }

    /// Waits without sending a command, until `wait` has passed or the wait is unblocked.
    pub(crate) async fn idle(&self, wait: Duration) {
        let changed = self.state.changed.notified();
        if !self.state.unblock_requested.load(Ordering::SeqCst) {
            // A timeout is the ordinary end of this wait.
            drop(tokio::time::timeout(wait, changed).await);
        }
    }

    async fn connect(&self) -> Result<Node, QueueError> {
        let mut node = self.shared.open_dedicated().await?;
        let id = node
            .connection
            .send_packed_command(redis::cmd("CLIENT").arg("ID"))
            .await
            .and_then(Value::extract_error);
        let client = match id {
            Ok(Value::Int(client)) => Some((node.address.clone(), client)),
            // A user who may not query the id can still read. Its reads block in short slices
            // instead of being unblocked.
            Ok(_) => None,
            Err(source) if redis_error::is_forbidden(&source) => None,
            Err(source) => {
                return Err(QueueError::Command {
                    command: "CLIENT ID",
                    source,
                });
            }
        };
        *self.state.client() = client;
        Ok(node)
    }
}

impl ReaderState {
    /// Records that the connection is closed.
    fn mark_disconnected(&self) {
        *self.client() = None;
    }

    fn client(&self) -> std::sync::MutexGuard<'_, Option<(String, i64)>> {
        // The pair is assigned in one step, so a panic cannot leave it half written.
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a wait of one reader from another task, with `CLIENT UNBLOCK`.
#[derive(Debug, Clone)]
pub struct Unblocker {
    shared: SharedConnection,
    state: Arc<ReaderState>,
}

impl Unblocker {
    /// Ends the reader's current wait, which then returns nothing. If the reader is not waiting,
    /// its next wait ends at once.
    ///
    /// Returns once the reader's call has ended or is certain to end.
    ///
    /// # Cancel safety
    /// Safe: the reader sees the request at the latest at the end of the current slice of its wait.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached. The reader's wait then ends by its own timeout.
    pub async fn unblock(&self) -> Result<(), QueueError> {
        self.state.unblock_requested.store(true, Ordering::SeqCst);
        self.state.changed.notify_waiters();
        // The reader may have checked the flag before it was set, while its command has not reached
        // the server yet. So one unblock is not enough.
        while self.state.in_call.load(Ordering::SeqCst) {
            let client = self.state.client().clone();
            // The id is valid only on its own server: during a failover the reader may still wait
            // at the old one.
            if let Some((address, id)) = client
                && self.shared.address().await? == address
            {
                let mut command = redis::cmd("CLIENT");
                command.arg("UNBLOCK").arg(id);
                let answer = self.shared.run_once("CLIENT UNBLOCK", &command).await?;
                if matches!(answer, Value::Int(1)) {
                    return Ok(());
                }
            }
            let changed = self.state.changed.notified();
            if self.state.in_call.load(Ordering::SeqCst) {
                // A timeout is the ordinary end of this wait.
                drop(tokio::time::timeout(UNBLOCK_RETRY_DELAY, changed).await);
            }
        }
        Ok(())
    }
}
