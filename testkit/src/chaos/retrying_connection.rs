//! A connection that survives restarts of Redis: it repeats each command until Redis answers.

use std::time::{Duration, Instant};

use redis::{Connection, FromRedisValue, RedisResult};

use crate::namespace::WAIT_TIMEOUT;

/// Repeats commands until Redis answers. Use it only for commands that may run twice.
pub(super) struct RetryingConnection {
    url: String,
    connection: Option<Connection>,
}

impl RetryingConnection {
    /// Returns a value that connects at its first command.
    pub(super) fn of(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            connection: None,
        }
    }

    /// Runs a command and returns its reply.
    pub(super) fn ask<T: FromRedisValue>(&mut self, words: &[&str]) -> T {
        self.retry(|connection| redis::cmd(words[0]).arg(&words[1..]).query(connection))
    }

    /// Runs a pipeline and returns its replies.
    pub(super) fn ask_all<T: FromRedisValue>(&mut self, pipeline: &redis::Pipeline) -> T {
        self.retry(|connection| pipeline.query(connection))
    }

    fn retry<T>(&mut self, mut once: impl FnMut(&mut Connection) -> RedisResult<T>) -> T {
        let deadline = Instant::now() + WAIT_TIMEOUT;
        loop {
            let answer = match self.connection.as_mut() {
                Some(connection) => once(connection),
                None => match connect(&self.url) {
                    Ok(connection) => {
                        self.connection = Some(connection);
                        continue;
                    }
                    Err(error) => Err(error),
                },
            };
            match answer {
                Ok(answer) => return answer,
                Err(error) => {
                    assert!(
                        Instant::now() < deadline,
                        "redis did not come back: {error}"
                    );
                    self.connection = None;
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        }
    }
}

fn connect(url: &str) -> RedisResult<Connection> {
    let connection =
        redis::Client::open(url)?.get_connection_with_timeout(Duration::from_secs(5))?;
    connection.set_read_timeout(Some(Duration::from_secs(20)))?;
    Ok(connection)
}
