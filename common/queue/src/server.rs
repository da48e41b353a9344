//! Properties of the Redis server, and the check whether it may hold jobs.

use uuid::Uuid;

use crate::resp::RespValue;
use crate::{Queue, QueueError, redis_error};
use sandhog_core::units::ByteCount;

/// Maximum length of an argument that a Redis should accept. Its setting is `proto-max-bulk-len`,
/// 512 MiB by default. With a larger limit, a client that may use `XADD` can make Redis hold, and
/// pass to a script, entries of that size.
pub const ARGUMENT_BYTES_MAX: ByteCount = ByteCount::mib(64);

/// Oldest major version of Redis on which the scripts run.
const OLDEST_MAJOR: u32 = 7;

/// Properties that a Redis server reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFacts {
    /// The version of Redis that it is, or is compatible with, such as `7.0.15`.
    pub version: String,
    /// Its own version, if it is a Valkey.
    pub valkey: Option<String>,
    /// Its behaviour when its memory is full: `maxmemory-policy`.
    pub eviction_policy: String,
    /// True if it writes an append-only file.
    pub appendonly: bool,
    /// Its memory limit in bytes; zero means no limit.
    pub maxmemory: u64,
}

impl Queue {
    /// Reads the server's properties.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached, or when its answer cannot be decoded.
    pub async fn server(&self) -> Result<ServerFacts, QueueError> {
        let answer = self
            .connection
            .run_repeatable("INFO", &redis::cmd("INFO"))
            .await?;
        facts(&RespValue::new("INFO", answer).text()?)
    }

    /// Checks the server. Rejects one that could lose jobs: one that evicts keys, or one that is
    /// older than 7.0.
    ///
    /// # Errors
    /// Fails with [`QueueError::Evicting`] or [`QueueError::TooOld`], each with a hint, and as
    /// [`Queue::server`] does.
    pub async fn check(&self) -> Result<ServerFacts, QueueError> {
        let facts = self.server().await?;
        check_facts(&facts)?;
        Ok(facts)
    }

    /// Returns the maximum length of an argument that the server accepts. `None` if the user may
    /// not read the server's settings.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached, or when its answer cannot be decoded.
    pub async fn argument_limit(&self) -> Result<Option<ByteCount>, QueueError> {
        let mut command = redis::cmd("CONFIG");
        command.arg("GET").arg("proto-max-bulk-len");
        match self.connection.run_repeatable("CONFIG GET", &command).await {
            Ok(answer) => {
                let value = RespValue::new("CONFIG GET", answer).parts()?.nth(1);
                value.map(|value| value.number().map(ByteCount)).transpose()
            }
            // A hosted Redis may not have the command, or may have it under another name.
            Err(QueueError::Command { source, .. })
                if redis_error::is_forbidden(&source)
                    || !crate::redis_error::is_transient(&source) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Returns the id of this namespace on this Redis, which differs from the id of a namespace of
    /// the same name on another Redis. The first caller creates it.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached, or when the key holds another value.
    pub async fn identity(&self) -> Result<Uuid, QueueError> {
        let mut command = redis::cmd("SET");
        let fresh = Uuid::now_v7();
        command
            .arg(self.keys.identity())
            .arg(fresh.simple().to_string())
            .arg("NX")
            .arg("GET");
        let answer = self.connection.run_repeatable("SET", &command).await?;
        if answer == redis::Value::Nil {
            return Ok(fresh);
        }
        let known = RespValue::new("SET", answer).text()?;
        Uuid::try_parse(&known).map_err(|_not_ours| QueueError::Reply {
            command: "SET",
            detail: format!(
                "identity {:?}, not a UUID",
                sandhog_core::id::clip(&known, 40)
            ),
        })
    }
}

/// Decodes `INFO`: `name:value` lines among headings.
fn facts(info: &str) -> Result<ServerFacts, QueueError> {
    let look = |name: &'static str| {
        info.lines()
            .filter_map(|line| line.trim_end().split_once(':'))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    };
    let find = |name: &'static str| {
        look(name).ok_or_else(|| QueueError::Reply {
            command: "INFO",
            detail: format!("no {name}"),
        })
    };
    Ok(ServerFacts {
        version: find("redis_version")?.to_owned(),
        valkey: look("valkey_version").map(str::to_owned),
        eviction_policy: find("maxmemory_policy")?.to_owned(),
        appendonly: find("aof_enabled")? == "1",
        maxmemory: find("maxmemory")?.parse().unwrap_or_default(),
    })
}

fn check_facts(facts: &ServerFacts) -> Result<(), QueueError> {
    let major = facts.version.split('.').next().map(str::parse::<u32>);
    match major {
        Some(Ok(major)) if major >= OLDEST_MAJOR => {}
        Some(_) | None => {
            return Err(QueueError::TooOld {
                version: sandhog_core::id::clip(&facts.version, 40),
            });
        }
    }
    // The policy is checked even without a memory limit, because one can be set while this program
    // runs.
    if facts.eviction_policy == "noeviction" {
        Ok(())
    } else {
        Err(QueueError::Evicting {
            policy: sandhog_core::id::clip(&facts.eviction_policy, 40),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_may_lose_jobs_is_refused_with_a_hint() {
        let info = |version: &str, policy: &str| {
            format!(
                "# Server\r\nredis_version:{version}\r\n# Memory\r\nmaxmemory:0\r\n\
                 maxmemory_policy:{policy}\r\n# Persistence\r\naof_enabled:1\r\n"
            )
        };
        for (case, version, policy, want) in [
            ("good", "7.0.15", "noeviction", None),
            ("newer", "10.2.0", "noeviction", None),
            (
                "evicting",
                "7.2.0",
                "allkeys-lru",
                Some(
                    "redis evicts keys when full (maxmemory-policy is \"allkeys-lru\", want \
                     \"noeviction\")",
                ),
            ),
            (
                "results would go early",
                "7.2.0",
                "volatile-ttl",
                Some(
                    "redis evicts keys when full (maxmemory-policy is \"volatile-ttl\", want \
                     \"noeviction\")",
                ),
            ),
            (
                "old",
                "6.2.14",
                "noeviction",
                Some("redis 6.2.14 is too old (want 7.0 or newer)"),
            ),
            (
                "unreadable",
                "dev",
                "noeviction",
                Some("redis dev is too old (want 7.0 or newer)"),
            ),
        ] {
            let facts = facts(&info(version, policy)).unwrap();
            assert!(facts.appendonly, "case {case}");
            let error = check_facts(&facts).err();
            assert_eq!(
                error.as_ref().map(ToString::to_string).as_deref(),
                want,
                "case {case}"
            );
            assert!(
                error.is_none_or(|error| error.hint().is_some()),
                "case {case}"
            );
        }
        assert!(facts("nothing of the kind").is_err());
    }
}
