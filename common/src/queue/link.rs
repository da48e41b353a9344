//! The shared connection for everything that does not wait.
//!
//! One multiplexed connection serves all callers; it reconnects by itself, but the command that meets the break
//! fails. Commands that may be repeated without harm are repeated here until the response timeout has passed.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig, MultiplexedConnection};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, IntoConnectionInfo, Pipeline, RedisError,
    ServerErrorKind, Value,
};
use tokio::time::Instant;

use super::QueueError;
use crate::config::RedisSettings;

/// How long to wait before a command is tried again, at most; the wait is a random part of it, so that clients that
/// lost the same server do not come back together.
const REPEAT_WAIT: Duration = Duration::from_millis(200);

/// How often the connection tries to be made again before the commands that wait for it fail, and how long it waits
/// between, at most. [`Link::repeatable`] tries above that.
const RECONNECTS: usize = 4;
const RECONNECT_WAIT: Duration = Duration::from_secs(1);

/// One multiplexed connection that reconnects by itself, and the means to make others.
#[derive(Debug, Clone)]
pub(super) struct Link {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    client: Client,
    manager: ConnectionManager,
    address: String,
    connect_timeout: Duration,
    response_timeout: Duration,
}

impl Link {
    /// Connects, once: a server that is not there is an error at once, not after a row of retries.
    pub(super) async fn connect(settings: &RedisSettings) -> Result<Self, QueueError> {
        let url = settings.url.as_deref().ok_or(QueueError::NoAddress)?;
        let client = open(url)?;
        let connect_timeout = settings.connect_timeout_ms.duration();
        let response_timeout = settings.response_timeout_ms.duration();
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(connect_timeout))
            .set_response_timeout(Some(response_timeout))
            .set_number_of_retries(RECONNECTS)
            .set_max_delay(RECONNECT_WAIT);
        let address = redacted(&client);
        let manager =
            ConnectionManager::new_lazy_with_config(client.clone(), config).map_err(|source| {
                QueueError::Connect {
                    address: address.clone(),
                    source,
                }
            })?;
        let link = Self {
            inner: Arc::new(Inner {
                client,
                manager,
                address,
                connect_timeout,
                response_timeout,
            }),
        };
        drop(link.another().await?);
        Ok(link)
    }

    /// A connection of its own, for somebody who waits. Its caller sets the response timeout of each command.
    pub(super) async fn another(&self) -> Result<MultiplexedConnection, QueueError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.inner.connect_timeout))
            .set_response_timeout(Some(self.inner.response_timeout));
        self.inner
            .client
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .map_err(|source| QueueError::Connect {
                address: self.inner.address.clone(),
                source,
            })
    }

    /// Runs a command once. Whether it ran is unknown when the connection breaks.
    pub(super) async fn once(
        &self,
        command: &'static str,
        text: &Cmd,
    ) -> Result<Value, QueueError> {
        let mut manager = self.inner.manager.clone();
        manager
            .send_packed_command(text)
            .await
            .and_then(Value::extract_error)
            .map_err(|source| QueueError::Command { command, source })
    }

    /// Runs a command that may be repeated without harm, again after a broken connection, until the response timeout
    /// has passed.
    pub(super) async fn repeatable(
        &self,
        command: &'static str,
        text: &Cmd,
    ) -> Result<Value, QueueError> {
        let deadline = Instant::now() + self.inner.response_timeout;
        loop {
            match self.once(command, text).await {
                Err(QueueError::Command { source, .. })
                    if is_break(&source) && Instant::now() < deadline =>
                {
                    tracing::debug!(command, "the connection to redis broke; trying again");
                    tokio::time::sleep(REPEAT_WAIT.mul_f64(rand::random())).await;
                }
                settled => return settled,
            }
        }
    }

    /// Runs many commands in one go, once. Answers in order; the first error stands for all.
    pub(super) async fn pipeline(
        &self,
        command: &'static str,
        commands: &Pipeline,
    ) -> Result<Vec<Value>, QueueError> {
        let mut manager = self.inner.manager.clone();
        // A transaction answers once for MULTI, once for each command it queues, and then all at once. Asked for
        // anything else, the connection would hand the rest to whoever asks next.
        let (skipped, wanted) = if commands.is_transaction() {
            (commands.len() + 1, 1)
        } else {
            (0, commands.len())
        };
        let mut answers = manager
            .send_packed_commands(commands, skipped, wanted)
            .await
            .map_err(|source| QueueError::Command { command, source })?;
        if commands.is_transaction() {
            answers = match answers.pop() {
                Some(Value::Array(answers)) => answers,
                Some(_) | None => Vec::new(),
            };
        }
        answers
            .into_iter()
            .map(|answer| {
                answer
                    .extract_error()
                    .map_err(|source| QueueError::Command { command, source })
            })
            .collect()
    }

    /// Runs many commands that may be repeated without harm, again after a broken connection.
    pub(super) async fn repeatable_pipeline(
        &self,
        command: &'static str,
        commands: &Pipeline,
    ) -> Result<Vec<Value>, QueueError> {
        let deadline = Instant::now() + self.inner.response_timeout;
        loop {
            match self.pipeline(command, commands).await {
                Err(QueueError::Command { source, .. })
                    if is_break(&source) && Instant::now() < deadline =>
                {
                    tokio::time::sleep(REPEAT_WAIT.mul_f64(rand::random())).await;
                }
                settled => return settled,
            }
        }
    }
}

/// A client for an address. Small commands must not wait for Nagle's algorithm, which redis-rs leaves on.
fn open(url: &str) -> Result<Client, QueueError> {
    let refuse = |source| QueueError::Address {
        address: without_password(url),
        source,
    };
    let info = url.into_connection_info().map_err(refuse)?;
    let tcp = info.tcp_settings().clone().set_nodelay(true);
    Client::open(info.set_tcp_settings(tcp)).map_err(refuse)
}

/// Where a client connects to, as text for messages: never its password.
fn redacted(client: &Client) -> String {
    client.get_connection_info().addr().to_string()
}

/// An address that does not read, without what may be a password: only what follows the last `@`.
fn without_password(url: &str) -> String {
    let shown = match url.rsplit_once('@') {
        Some((_secret, place)) => format!("…@{place}"),
        None => url.to_owned(),
    };
    crate::id::clip(&shown, 160)
}

/// Whether the connection broke, or the server is not ready yet; not whether it merely took too long.
fn is_break(error: &RedisError) -> bool {
    (error.is_io_error() && !error.is_timeout())
        || matches!(
            error.kind(),
            ErrorKind::Server(ServerErrorKind::BusyLoading | ServerErrorKind::MasterDown)
        )
}

/// Whether the server may well answer the same command later.
pub(super) fn is_transient(error: &RedisError) -> bool {
    error.is_io_error()
        || matches!(
            error.kind(),
            ErrorKind::Server(
                ServerErrorKind::BusyLoading
                    | ServerErrorKind::TryAgain
                    | ServerErrorKind::MasterDown
                    | ServerErrorKind::ClusterDown
                    | ServerErrorKind::ReadOnly
            )
        )
        || is_full(error)
        || error.code() == Some("BUSY")
}

/// Whether nothing listens there.
pub(super) fn is_refusal(error: &RedisError) -> bool {
    error.is_connection_refusal()
}

/// Whether the server is at its memory cap.
pub(super) fn is_full(error: &RedisError) -> bool {
    error.code() == Some("OOM")
}

/// Whether this user may not do that.
pub(super) fn is_forbidden(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Server(ServerErrorKind::NoPerm))
}

/// Whether a stream has no such consumer group, or is not there.
pub(super) fn is_missing_group(error: &RedisError) -> bool {
    error.code() == Some("NOGROUP")
}

/// Whether a consumer group could not be made because it is there.
pub(super) fn is_existing_group(error: &RedisError) -> bool {
    error.code() == Some("BUSYGROUP")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_stay_out_of_messages() {
        for (case, url, want) in [
            ("password", "redis://me:secret@host:1/x/y", "…@host:1/x/y"),
            ("plain", "host:1", "host:1"),
        ] {
            assert_eq!(without_password(url), want, "case {case}");
        }
        let client = open("redis://me:secret@127.0.0.1:6380").unwrap();
        assert_eq!(redacted(&client), "127.0.0.1:6380");
        assert!(client.get_connection_info().tcp_settings().nodelay());
    }
}
