//! The shared connection for everything that does not wait.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use super::QueueError;
use crate::config::RedisSettings;

/// One multiplexed connection that reconnects by itself.
#[derive(Debug, Clone)]
pub(super) struct Link {}

impl Link {
    pub(super) async fn connect(settings: &RedisSettings) -> Result<Self, QueueError> {
        let _ = settings;
        unimplemented!()
    }
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
