//! What can go wrong between us and Redis, and whether trying again may help.

use crate::id::IdError;

/// Why a queue operation failed. A job's own fate is never one of these.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// No address was given.
    #[error("no Redis address is set")]
    NoAddress,
    /// The address does not read.
    #[error("redis address {address:?} is not valid")]
    Address {
        /// The address, its password left out.
        address: String,
        /// What the parser said.
        #[source]
        source: redis::RedisError,
    },
    /// Redis could not be reached, or refused us.
    #[error("cannot connect to redis at {address}")]
    Connect {
        /// The address, its password left out.
        address: String,
        /// What happened.
        #[source]
        source: redis::RedisError,
    },
    /// A command failed.
    #[error("redis command {command} failed")]
    Command {
        /// The command, or the script's name.
        command: &'static str,
        /// What happened.
        #[source]
        source: redis::RedisError,
    },
    /// An answer of a shape that the command never has.
    #[error("redis answered {command} with {detail}")]
    Reply {
        /// The command, or the script's name.
        command: &'static str,
        /// What came instead.
        detail: String,
    },
    /// A stored name does not read back.
    #[error("redis answered {command} with a bad name")]
    Name {
        /// The command, or the script's name.
        command: &'static str,
        /// Which.
        #[source]
        source: IdError,
    },
    /// This Redis may throw jobs away when its memory is full.
    #[error("redis evicts keys when full (maxmemory-policy is {policy:?}, want \"noeviction\")")]
    Evicting {
        /// The policy it has.
        policy: String,
    },
    /// This Redis lacks commands the scripts need.
    #[error("redis {version} is too old (want 7.0 or newer)")]
    TooOld {
        /// The version it has.
        version: String,
    },
}

impl QueueError {
    /// Whether the same call may succeed later without anybody changing anything: Redis was away, busy or loading.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect { source, .. } | Self::Command { source, .. } => {
                super::link::is_transient(source)
            }
            Self::NoAddress
            | Self::Address { .. }
            | Self::Reply { .. }
            | Self::Name { .. }
            | Self::Evicting { .. }
            | Self::TooOld { .. } => false,
        }
    }

    /// What the operator can do about it, where we know.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoAddress => Some(
                "set SANDHOG_REDIS_URL, for example to redis://127.0.0.1:6379, or use `sandhog up`",
            ),
            Self::Address { .. } => {
                Some("write redis://[user:password@]host:port[/db] or unix:/path")
            }
            Self::Connect { source, .. } if super::link::is_refusal(source) => {
                Some("start redis-server there, or correct SANDHOG_REDIS_URL")
            }
            Self::Connect { .. } => {
                Some("check the address, the network between, and the password")
            }
            Self::Command { source, .. } if super::link::is_full(source) => Some(
                "redis is at maxmemory: raise it, or let results expire sooner; nothing queued is lost",
            ),
            Self::Command { source, .. } if super::link::is_forbidden(source) => {
                Some("give this redis user the commands and keys that docs/protocol.md lists")
            }
            Self::Evicting { .. } => Some(
                "run `redis-cli CONFIG SET maxmemory-policy noeviction` and write it to redis.conf",
            ),
            Self::TooOld { .. } => Some("install redis 7.0 or newer"),
            Self::Command { .. } | Self::Reply { .. } | Self::Name { .. } => None,
        }
    }
}
