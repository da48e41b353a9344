//! Errors between this program and Redis, and whether a retry may succeed.

use std::path::PathBuf;

use crate::redis_error;
use sandhog_core::id::IdError;

/// Hint for a failed TLS handshake. The name of the server may come from a Sentinel or a cluster
/// node instead of the operator's settings.
const CERTIFICATES: &str = "check redis.tls_ca (the authority that signed the server's \
    certificate), redis.tls_cert (if the server requires a client certificate), and that the \
    server's certificate contains the host name of the url or the name that sentinels and cluster \
    nodes announce (docs/reference/redis.md)";

/// Reason why a queue operation failed. The result of a job is never reported by this type.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// No address was given.
    #[error("no Redis address is set")]
    NoAddress,
    /// The address cannot be parsed.
    #[error("redis address {address:?} is not valid")]
    Address {
        /// The address, without its password.
        address: String,
        /// The parser's error.
        #[source]
        source: redis::RedisError,
    },
    /// Redis could not be reached, or rejected the login.
    #[error("cannot connect to redis at {address}")]
    Connect {
        /// The address, without its password.
        address: String,
        /// The underlying error.
        #[source]
        source: redis::RedisError,
    },
    /// None of the Sentinels that answered names a master.
    #[error("no sentinel of {sentinels} names a master of {service:?}")]
    NoMaster {
        /// The service.
        service: String,
        /// Addresses of the Sentinels that were asked.
        sentinels: String,
        /// Error of the last Sentinel that failed, if any failed.
        #[source]
        source: Option<redis::RedisError>,
    },
    /// A file with a certificate or key cannot be read.
    #[error("cannot read {path:?}")]
    CertificateFile {
        /// Path of the file.
        path: PathBuf,
        /// The operating system's error.
        #[source]
        source: std::io::Error,
    },
    /// A file that should hold a certificate or key holds none.
    #[error("{path:?} holds no {kind} in PEM form")]
    NoCertificate {
        /// Path of the file.
        path: PathBuf,
        /// Kind of PEM block that the file must contain, such as `CERTIFICATE`.
        kind: &'static str,
    },
    /// A write was done, but fewer replicas than required have it.
    #[error("{have} of {want} replicas have what {command} wrote")]
    NotReplicated {
        /// The command, or the script's name.
        command: &'static str,
        /// Number of replicas that have it.
        have: u32,
        /// Number of replicas required: `redis.wait_replicas`.
        want: u32,
    },
    /// A command failed.
    #[error("redis command {command} failed")]
    Command {
        /// The command, or the script's name.
        command: &'static str,
        /// The underlying error.
        #[source]
        source: redis::RedisError,
    },
    /// An answer whose form the command never has.
    #[error("redis answered {command} with {detail}")]
    Reply {
        /// The command, or the script's name.
        command: &'static str,
        /// Description of the answer.
        detail: String,
    },
    /// A name stored in Redis is not valid.
    #[error("redis answered {command} with a bad name")]
    Name {
        /// The command, or the script's name.
        command: &'static str,
        /// The reason why the name is not valid.
        #[source]
        source: IdError,
    },
    /// This Redis may delete jobs when its memory is full.
    #[error("redis evicts keys when full (maxmemory-policy is {policy:?}, want \"noeviction\")")]
    Evicting {
        /// The policy that it has.
        policy: String,
    },
    /// This Redis lacks commands that the scripts need.
    #[error("redis {version} is too old (want 7.0 or newer)")]
    TooOld {
        /// The version that it has.
        version: String,
    },
}

impl QueueError {
    /// Returns whether the same call may succeed later without a change by the operator: Redis was
    /// unreachable, busy or loading.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect { source, .. } | Self::Command { source, .. } => {
                redis_error::is_transient(source)
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

    /// Returns whether this user lacks the permission for the command.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Command { source, .. } if redis_error::is_forbidden(source))
    }

    /// Returns advice for the operator, for the errors that have one.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoAddress => Some(
                "set SANDHOG_REDIS_URL, for example to redis://127.0.0.1:6379, or use `sandhog up`",
            ),
            Self::Address { .. } => Some(
                "write redis://[user:password@]host:port[/db], or see docs/reference/redis.md for \
                 TLS, Sentinel and Cluster",
            ),
            Self::CertificateFile { .. } | Self::NoCertificate { .. } => {
                Some("correct redis.tls_ca, redis.tls_cert and redis.tls_key: they name PEM files")
            }
            Self::NoMaster {
                source: Some(source),
                ..
            } if redis_error::is_certificate(source) => Some(CERTIFICATES),
            Self::NoMaster { .. } => Some(
                "check the service's name in redis.url, redis.sentinel_password, and that a \
                 sentinel can be reached",
            ),
            Self::NotReplicated { .. } => {
                Some("bring the replicas back, or lower redis.wait_replicas")
            }
            Self::Connect { source, .. } if redis_error::is_certificate(source) => {
                Some(CERTIFICATES)
            }
            Self::Connect { source, .. } if redis_error::is_login(source) => {
                Some("correct user and password in redis.url")
            }
            Self::Connect { source, .. } if redis_error::is_refusal(source) => {
                Some("start redis-server there, or correct SANDHOG_REDIS_URL")
            }
            Self::Connect { .. } => {
                Some("check the address, the network between, and the password")
            }
            Self::Command { source, .. } if redis_error::is_full(source) => Some(
                "redis is at maxmemory: raise it, or let results expire sooner; nothing queued is \
                 lost",
            ),
            Self::Command { source, .. } if redis_error::is_forbidden(source) => Some(
                "give this redis user the commands and keys that docs/reference/protocol.md lists",
            ),
            Self::Evicting { .. } => Some(
                "run `redis-cli CONFIG SET maxmemory-policy noeviction` and write it to redis.conf",
            ),
            Self::TooOld { .. } => Some("install redis 7.0 or newer"),
            Self::Command { .. } | Self::Reply { .. } | Self::Name { .. } => None,
        }
    }
}
