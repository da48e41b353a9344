//! Classifies an error of Redis for the caller: whether the command ran, and where to retry it.

use std::error::Error;
use std::sync::Arc;

use redis::{ErrorKind, RedisError, ServerErrorKind};

/// Reaction to an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RedisErrorRemedy<'a> {
    /// The command did not run: the keys are on this node.
    Elsewhere(&'a str),
    /// The command did not run: the keys are being moved, and this one is already on that node.
    Asking(&'a str),
    /// The command did not run: this node is not, or no longer, the one that takes writes.
    OtherNode,
    /// The command did not run: the node is not ready.
    Wait,
    /// It is unknown whether the command ran, and the connection is broken.
    Reconnect,
    /// It is unknown whether the command ran and whether the connection still works.
    Late,
    /// The error is the answer to the command: no retry and no reconnect.
    Final,
}

/// Returns the reaction to this error.
pub(crate) fn remedy(error: &RedisError) -> RedisErrorRemedy<'_> {
    match error.kind() {
        ErrorKind::Server(ServerErrorKind::Moved) => error
            .redirect_node()
            .map_or(RedisErrorRemedy::OtherNode, |(address, _)| {
                RedisErrorRemedy::Elsewhere(address)
            }),
        ErrorKind::Server(ServerErrorKind::Ask) => error
            .redirect_node()
            .map_or(RedisErrorRemedy::Wait, |(address, _)| {
                RedisErrorRemedy::Asking(address)
            }),
        ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown) => {
            RedisErrorRemedy::OtherNode
        }
        ErrorKind::Server(
            ServerErrorKind::BusyLoading | ServerErrorKind::TryAgain | ServerErrorKind::ClusterDown,
        ) => RedisErrorRemedy::Wait,
        _ if is_unblocked(error) => RedisErrorRemedy::OtherNode,
        // Too few replicas are connected: min-replicas-to-write.
        _ if error.code() == Some("NOREPLICAS") => RedisErrorRemedy::Wait,
        ErrorKind::MasterNameNotFoundBySentinel | ErrorKind::ClusterConnectionNotFound => {
            RedisErrorRemedy::OtherNode
        }
        _ if error.is_timeout() => RedisErrorRemedy::Late,
        _ if error.is_io_error() => RedisErrorRemedy::Reconnect,
        _ => RedisErrorRemedy::Final,
    }
}

/// Returns whether the same command may succeed later.
pub(crate) fn is_transient(error: &RedisError) -> bool {
    remedy(error) != RedisErrorRemedy::Final || is_full(error) || error.code() == Some("BUSY")
}

/// Returns whether the connection was refused because nothing listens at the address.
pub(crate) fn is_refusal(error: &RedisError) -> bool {
    error.is_connection_refusal()
}

/// Returns whether the TLS handshake failed because of a certificate.
pub(crate) fn is_certificate(error: &RedisError) -> bool {
    type Shared = Arc<dyn Error + Send + Sync>;
    // `Error::source` of an I/O error skips the error that it wraps, so the wrapped error is taken
    // with `get_ref`.
    error
        .source()
        .and_then(|cause| cause.downcast_ref::<Shared>())
        .and_then(|shared| shared.downcast_ref::<std::io::Error>())
        .and_then(std::io::Error::get_ref)
        .is_some_and(|inner| inner.is::<rustls::Error>())
}

/// Returns whether the server rejected the user name or the password.
pub(crate) fn is_login(error: &RedisError) -> bool {
    error.kind() == ErrorKind::AuthenticationFailed
        || matches!(error.code(), Some("NOAUTH" | "WRONGPASS"))
}

/// Returns whether the server ended a wait because it became a replica, or because the key was
/// deleted.
pub(crate) fn is_unblocked(error: &RedisError) -> bool {
    error.code() == Some("UNBLOCKED")
}

/// Returns whether the server has reached its memory limit.
pub(crate) fn is_full(error: &RedisError) -> bool {
    error.code() == Some("OOM")
}

/// Returns whether this user lacks the permission for the command.
pub(crate) fn is_forbidden(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Server(ServerErrorKind::NoPerm))
}

/// Returns whether the consumer group or its stream does not exist.
pub(crate) fn is_missing_group(error: &RedisError) -> bool {
    error.code() == Some("NOGROUP")
}

/// Returns whether a consumer group was not created because it exists already.
pub(crate) fn is_existing_group(error: &RedisError) -> bool {
    error.code() == Some("BUSYGROUP")
}

#[cfg(test)]
mod tests {
    use redis::make_extension_error;

    use super::*;

    #[test]
    fn every_error_has_its_remedy() {
        let server = |code: &str, detail: &str| {
            let text = format!("-{code} {detail}\r\n");
            redis::parse_redis_value(text.as_bytes())
                .unwrap()
                .extract_error()
                .unwrap_err()
        };
        for (code, detail, want) in [
            ("MOVED", "5 h:7", RedisErrorRemedy::Elsewhere("h:7")),
            ("MOVED", "5 :7", RedisErrorRemedy::Elsewhere(":7")),
            ("ASK", "5 h:7", RedisErrorRemedy::Asking("h:7")),
            ("READONLY", "You can't write", RedisErrorRemedy::OtherNode),
            ("UNBLOCKED", "forced", RedisErrorRemedy::OtherNode),
            ("MASTERDOWN", "Link", RedisErrorRemedy::OtherNode),
            ("CLUSTERDOWN", "Hash slot", RedisErrorRemedy::Wait),
            ("LOADING", "Redis is", RedisErrorRemedy::Wait),
            ("NOREPLICAS", "Not enough", RedisErrorRemedy::Wait),
            ("TRYAGAIN", "Multiple keys", RedisErrorRemedy::Wait),
            ("NOPERM", "User", RedisErrorRemedy::Final),
            ("ERR", "wrong", RedisErrorRemedy::Final),
        ] {
            assert_eq!(remedy(&server(code, detail)), want, "case {code}");
        }
        let io = |kind: std::io::ErrorKind| RedisError::from(std::io::Error::from(kind));
        assert_eq!(
            remedy(&io(std::io::ErrorKind::TimedOut)),
            RedisErrorRemedy::Late
        );
        assert_eq!(
            remedy(&io(std::io::ErrorKind::BrokenPipe)),
            RedisErrorRemedy::Reconnect
        );
        assert!(is_full(&make_extension_error("OOM".into(), None)));
    }

    #[test]
    fn a_bad_certificate_is_found_among_the_causes() {
        let cause = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let error = std::io::Error::new(std::io::ErrorKind::InvalidData, cause);
        assert!(is_certificate(&RedisError::from(error)));
        let other = std::io::Error::from(std::io::ErrorKind::InvalidData);
        assert!(!is_certificate(&RedisError::from(other)));
    }
}
