//! A connection for somebody who outlives Redis: every question is asked until it is answered.

use std::time::{Duration, Instant};

use redis::{Connection, FromRedisValue, RedisResult};

use crate::space::PATIENCE;

/// Asks until Redis answers. Only for what may be repeated.
pub(super) struct Patient {
    url: String,
    connection: Option<Connection>,
}

impl Patient {
    /// Not connected yet.
    pub(super) fn of(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            connection: None,
        }
    }

    /// The answer to a command.
    pub(super) fn ask<T: FromRedisValue>(&mut self, words: &[&str]) -> T {
        self.insist(|connection| redis::cmd(words[0]).arg(&words[1..]).query(connection))
    }

    /// The answers to a pipeline.
    pub(super) fn ask_all<T: FromRedisValue>(&mut self, pipeline: &redis::Pipeline) -> T {
        self.insist(|connection| pipeline.query(connection))
    }

    fn insist<T>(&mut self, mut once: impl FnMut(&mut Connection) -> RedisResult<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
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
                    assert!(Instant::now() < deadline, "redis stays away: {error}");
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
