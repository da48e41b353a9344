//! What can go wrong between us and Redis, and whether trying again may help.

use std::path::PathBuf;

use super::fault;
use crate::id::IdError;

/// What to do where certificates do not fit. The name may come from others than the operator.
const CERTIFICATES: &str = "check redis.tls_ca (who signed redis' certificate), redis.tls_cert (where redis asks for ours), and that the certificate holds the name in the url, or what sentinels and cluster nodes announce (docs/redis.md)";

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
    /// No Sentinel that answers names a master.
    #[error("no sentinel of {sentinels} names a master of {service:?}")]
    NoMaster {
        /// The service.
        service: String,
        /// Who was asked.
        sentinels: String,
        /// What the last of them that failed said.
        #[source]
        source: Option<redis::RedisError>,
    },
    /// A file with a certificate or key cannot be read.
    #[error("cannot read {path:?}")]
    CertificateFile {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A file that should hold a certificate or key holds none.
    #[error("{path:?} holds no {kind} in PEM form")]
    NoCertificate {
        /// Which.
        path: PathBuf,
        /// What it should hold, as PEM names it.
        kind: &'static str,
    },
    /// A write was done, and fewer replicas than wanted have it.
    #[error("{have} of {want} replicas have what {command} wrote")]
    NotReplicated {
        /// The command, or the script's name.
        command: &'static str,
        /// How many replicas have it.
        have: u32,
        /// How many should: `redis.wait_replicas`.
        want: u32,
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
                fault::is_transient(source)
            }
            Self::NoMaster { .. } | Self::NotReplicated { .. } => true,
            Self::NoAddress
            | Self::Address { .. }
            | Self::CertificateFile { .. }
            | Self::NoCertificate { .. }
            | Self::Reply { .. }
            | Self::Name { .. }
            | Self::Evicting { .. }
            | Self::TooOld { .. } => false,
        }
    }

    /// Returns whether this user may not do that.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Command { source, .. } if fault::is_forbidden(source))
    }

    /// What the operator can do about it, where we know.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoAddress => Some(
                "set SANDHOG_REDIS_URL, for example to redis://127.0.0.1:6379, or use `sandhog up`",
            ),
            Self::Address { .. } => Some(
                "write redis://[user:password@]host:port[/db], or see docs/redis.md for TLS, Sentinel and Cluster",
            ),
            Self::CertificateFile { .. } | Self::NoCertificate { .. } => {
                Some("correct redis.tls_ca, redis.tls_cert and redis.tls_key: they name PEM files")
            }
            Self::NoMaster {
                source: Some(source),
                ..
            } if fault::is_certificate(source) => Some(CERTIFICATES),
            Self::NoMaster { .. } => Some(
                "check the service's name in redis.url, redis.sentinel_password, and that a sentinel can be reached",
            ),
            Self::NotReplicated { .. } => {
                Some("bring the replicas back, or lower redis.wait_replicas")
            }
            Self::Connect { source, .. } if fault::is_certificate(source) => Some(CERTIFICATES),
            Self::Connect { source, .. } if fault::is_login(source) => {
                Some("correct user and password in redis.url")
            }
            Self::Connect { source, .. } if fault::is_refusal(source) => {
                Some("start redis-server there, or correct SANDHOG_REDIS_URL")
            }
            Self::Connect { .. } => {
                Some("check the address, the network between, and the password")
            }
            Self::Command { source, .. } if fault::is_full(source) => Some(
                "redis is at maxmemory: raise it, or let results expire sooner; nothing queued is lost",
            ),
            Self::Command { source, .. } if fault::is_forbidden(source) => {
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
