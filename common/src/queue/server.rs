//! What kind of Redis this is, and whether it may hold jobs.

use uuid::Uuid;

use super::reply::Reply;
use super::{Queue, QueueError, link};
use crate::units::ByteCount;

/// The longest argument that a Redis may take: its setting `proto-max-bulk-len`, 512 MiB unless it
/// is set. A client with `XADD` can otherwise make Redis hold, and hand to a script, entries of any
/// size.
pub const ARGUMENT_MOST: ByteCount = ByteCount::mib(64);

/// The oldest Redis the scripts run on.
const OLDEST_MAJOR: u32 = 7;

/// What a Redis server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFacts {
    /// The version of Redis it is, or behaves as, such as `7.0.15`.
    pub version: String,
    /// Its own version where it is a Valkey.
    pub valkey: Option<String>,
    /// What it does when its memory is full: `maxmemory-policy`.
    pub eviction_policy: String,
    /// Whether it keeps an append-only file.
    pub appendonly: bool,
    /// Its memory cap in bytes; zero means none.
    pub maxmemory: u64,
}

impl Queue {
    /// Asks the server what it is.
    ///
    /// # Errors
    /// When Redis cannot be asked, or answers nonsense.
    pub async fn server(&self) -> Result<ServerFacts, QueueError> {
        let answer = self.link.repeatable("INFO", &redis::cmd("INFO")).await?;
        facts(&Reply::new("INFO", answer).text()?)
    }

    /// Refuses a server that could lose jobs: one that evicts keys, or one older than 7.0.
    ///
    /// # Errors
    /// [`QueueError::Evicting`] and [`QueueError::TooOld`], each with a hint; and as [`Queue::server`].
    pub async fn check(&self) -> Result<ServerFacts, QueueError> {
        let facts = self.server().await?;
        judge(&facts)?;
        Ok(facts)
    }

    /// The longest argument that the server takes; none when this user may not read its settings.
    ///
    /// # Errors
    /// Fails when Redis cannot be asked, or answers nonsense.
    pub async fn argument_most(&self) -> Result<Option<ByteCount>, QueueError> {
        let mut command = redis::cmd("CONFIG");
        command.arg("GET").arg("proto-max-bulk-len");
        match self.link.repeatable("CONFIG GET", &command).await {
            Ok(answer) => {
                let value = Reply::new("CONFIG GET", answer).parts()?.nth(1);
                value.map(|value| value.number().map(ByteCount)).transpose()
            }
            // A hosted Redis may lack the command, or have it under another name.
            Err(QueueError::Command { source, .. })
                if link::is_forbidden(&source) || !super::fault::is_transient(&source) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// What tells this namespace on this Redis from one of the same name on another: made by whoever asks first.
    ///
    /// # Errors
    /// When Redis cannot be asked, or holds something else under that key.
    pub async fn identity(&self) -> Result<Uuid, QueueError> {
        let mut command = redis::cmd("SET");
        let fresh = Uuid::now_v7();
        command
            .arg(self.keys.identity())
            .arg(fresh.simple().to_string())
            .arg("NX")
            .arg("GET");
        let answer = self.link.repeatable("SET", &command).await?;
        if answer == redis::Value::Nil {
            return Ok(fresh);
        }
        let known = Reply::new("SET", answer).text()?;
        Uuid::try_parse(&known).map_err(|_not_ours| QueueError::Reply {
            command: "SET",
            detail: format!("identity {:?}", crate::id::clip(&known, 40)),
        })
    }
}

/// Reads `INFO`: `name:value` lines among headings.
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

fn judge(facts: &ServerFacts) -> Result<(), QueueError> {
    let major = facts.version.split('.').next().map(str::parse::<u32>);
    match major {
        Some(Ok(major)) if major >= OLDEST_MAJOR => {}
        Some(_) | None => {
            return Err(QueueError::TooOld {
                version: crate::id::clip(&facts.version, 40),
            });
        }
    }
    // Also without a memory cap: one can be set while we run.
    if facts.eviction_policy == "noeviction" {
        Ok(())
    } else {
        Err(QueueError::Evicting {
            policy: crate::id::clip(&facts.eviction_policy, 40),
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
                    "redis evicts keys when full (maxmemory-policy is \"allkeys-lru\", want \"noeviction\")",
                ),
            ),
            (
                "results would go early",
                "7.2.0",
                "volatile-ttl",
                Some(
                    "redis evicts keys when full (maxmemory-policy is \"volatile-ttl\", want \"noeviction\")",
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
            let error = judge(&facts).err();
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
