//! Connections that wait. Each waiting reader has its own, and a wait is ended by the server, never by dropping it.
//!
//! A dropped read would stay first in the connection's line of answers, and the job it gets later would go to
//! nobody. So a wait is ended with `CLIENT UNBLOCK`, and a connection whose read was dropped all the same is thrown
//! away with it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::{Cmd, Pipeline, Value};
use tokio::sync::Notify;

use super::QueueError;
use super::fault::{self, Remedy};
use super::link::{self, Link};
use super::route::Node;

/// How much longer than its wait a blocking command may take before the connection is given up.
const MARGIN: Duration = Duration::from_secs(5);

/// How soon an unblock that came before its read is tried again.
const UNBLOCK_AGAIN: Duration = Duration::from_millis(5);

/// How often one wait follows its keys to another node.
const HOPS: usize = 5;

/// A connection of one reader.
#[derive(Debug)]
pub(super) struct Blocking {
    link: Link,
    node: Option<Node>,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The server, and the connection's id there; none while there is no connection or the id may not be asked for.
    client: Mutex<Option<(String, i64)>>,
    /// Whether the reader is inside a call.
    reading: AtomicBool,
    /// Whether somebody wants the call to end.
    wanted: AtomicBool,
    /// Told when `wanted` is set, and when a call ends.
    changed: Notify,
}

/// Marks a reader's call; its end is marked even when the call is dropped.
#[derive(Debug)]
pub(super) struct Reading(Arc<State>);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.reading.store(false, Ordering::SeqCst);
        self.0.changed.notify_waiters();
    }
}

impl Blocking {
    /// Connects.
    pub(super) async fn open(link: &Link) -> Result<Self, QueueError> {
        let mut blocking = Self {
            link: link.clone(),
            node: None,
            state: Arc::default(),
        };
        blocking.node = Some(blocking.connect().await?);
        Ok(blocking)
    }

    /// The handle that ends waits.
    pub(super) fn unblocker(&self) -> Unblocker {
        Unblocker {
            link: self.link.clone(),
            state: Arc::clone(&self.state),
        }
    }

    /// Marks the beginning of a call that may wait.
    pub(super) fn enter(&self) -> Reading {
        self.state.reading.store(true, Ordering::SeqCst);
        Reading(Arc::clone(&self.state))
    }

    /// Whether the call has been asked to end; asking is used up by this.
    pub(super) fn is_unblocked(&self) -> bool {
        self.state.wanted.swap(false, Ordering::SeqCst)
    }

    /// Runs a command that the server may answer only after `wait`; nil when it is unblocked or nothing came.
    pub(super) async fn wait(
        &mut self,
        command: &'static str,
        text: &Cmd,
        wait: Duration,
    ) -> Result<Value, QueueError> {
        let mut one = redis::pipe();
        one.add_command(text.clone());
        self.send(command, &one, wait).await
    }

    /// Runs `wait`, which may block for `time` and whose answer the server leaves out, and then
    /// `text`, whose answer this is. An error of `wait` is left out too.
    pub(super) async fn wait_unanswered(
        &mut self,
        command: &'static str,
        wait: &Cmd,
        text: &Cmd,
        time: Duration,
    ) -> Result<Value, QueueError> {
        let mut three = redis::pipe();
        three.cmd("CLIENT").arg("REPLY").arg("SKIP");
        three.add_command(wait.clone());
        three.add_command(text.clone());
        let answer = self.send(command, &three, time).await;
        if let Err(QueueError::Command { source, .. }) = &answer
            && link::is_forbidden(source)
        {
            // Without the right to leave an answer out, the server sends three.
            self.node = None;
            self.state.gone();
        }
        answer
    }

    /// Sends commands of which the last one alone is answered, at most after `wait`.
    async fn send(
        &mut self,
        command: &'static str,
        text: &Pipeline,
        wait: Duration,
    ) -> Result<Value, QueueError> {
        let mut hops = 0;
        loop {
            // Taken, so that a dropped call takes its connection with it.
            let mut node = match self.node.take() {
                Some(node) => node,
                None => self.connect().await?,
            };
            node.connection.set_response_timeout(wait + MARGIN);
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
            match fault::remedy(&source) {
                // The server ended the wait: it is a replica now, or the key was deleted. Nothing came.
                Remedy::OtherNode if fault::is_unblocked(&source) => {
                    self.state.gone();
                    return Ok(Value::Nil);
                }
                Remedy::Elsewhere(to) => {
                    self.link.moved(&node.place, to);
                    self.state.gone();
                    hops += 1;
                    if hops < HOPS {
                        continue;
                    }
                }
                Remedy::OtherNode | Remedy::Reconnect | Remedy::Late => self.state.gone(),
                Remedy::Asking(_) | Remedy::Wait | Remedy::Final => self.node = Some(node),
            }
            return Err(QueueError::Command { command, source });
        }
    }

    /// Runs a command that the server answers at once.
    pub(super) async fn ask(
        &mut self,
        command: &'static str,
        text: &Cmd,
    ) -> Result<Value, QueueError> {
        self.wait(command, text, Duration::ZERO).await
    }

    /// Waits without a command, until `wait` has passed or somebody unblocks.
    pub(super) async fn idle(&self, wait: Duration) {
        let changed = self.state.changed.notified();
        if !self.state.wanted.load(Ordering::SeqCst) {
            // Running out of time is the ordinary end of this wait.
            drop(tokio::time::timeout(wait, changed).await);
        }
    }

    async fn connect(&self) -> Result<Node, QueueError> {
        let mut node = self.link.another().await?;
        let id = node
            .connection
            .send_packed_command(redis::cmd("CLIENT").arg("ID"))
            .await
            .and_then(Value::extract_error);
        let client = match id {
            Ok(Value::Int(client)) => Some((node.place.clone(), client)),
            // A user without the right to ask can still read; its waits end in slices.
            Ok(_) => None,
            Err(source) if link::is_forbidden(&source) => None,
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

impl State {
    /// The connection is no more.
    fn gone(&self) {
        *self.client() = None;
    }

    fn client(&self) -> std::sync::MutexGuard<'_, Option<(String, i64)>> {
        // A pair is written in one go.
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a wait of one reader from another task, with `CLIENT UNBLOCK`.
#[derive(Debug, Clone)]
pub struct Unblocker {
    link: Link,
    state: Arc<State>,
}

impl Unblocker {
    /// Makes the reader's present wait answer that nothing came; when it is not waiting, its next wait does.
    ///
    /// Returns once the reader's call has ended or is sure to.
    ///
    /// # Cancel safety
    /// Safe: the reader sees the request no later than the end of its wait's present slice.
    ///
    /// # Errors
    /// When Redis cannot be reached. The reader's wait ends by its own timeout then.
    pub async fn unblock(&self) -> Result<(), QueueError> {
        self.state.wanted.store(true, Ordering::SeqCst);
        self.state.changed.notify_waiters();
        // The reader may have looked before and its command may not have arrived yet, so once is not enough.
        while self.state.reading.load(Ordering::SeqCst) {
            let client = self.state.client().clone();
            // An id means nothing at another server: during a failover a reader may still wait at the old one.
            if let Some((place, id)) = client
                && self.link.place().await? == place
            {
                let mut command = redis::cmd("CLIENT");
                command.arg("UNBLOCK").arg(id);
                let answer = self.link.once("CLIENT UNBLOCK", &command).await?;
                if matches!(answer, Value::Int(1)) {
                    return Ok(());
                }
            }
            let changed = self.state.changed.notified();
            if self.state.reading.load(Ordering::SeqCst) {
                // Running out of time is the ordinary end of this wait.
                drop(tokio::time::timeout(UNBLOCK_AGAIN, changed).await);
            }
        }
        Ok(())
    }
}
