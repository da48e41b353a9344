//! Certificates for encrypted connections, read once when the queue is connected.
//!
//! The server's certificate is always checked: against the authority that is named, else against the machine's own.
//! There is no way to turn that off.

use std::path::Path;

use redis::{ClientTlsConfig, TlsCertificates};

use super::QueueError;
use crate::config::RedisSettings;

/// The largest file a certificate or key is read from, in bytes.
const MOST: u64 = 1 << 20;

/// Reads the files that `settings` name. Makes ring the cryptography of the process, where no other has been chosen.
pub(super) fn certificates(settings: &RedisSettings) -> Result<TlsCertificates, QueueError> {
    // Somebody else's choice stands.
    drop(rustls::crypto::ring::default_provider().install_default());
    let root_cert = match &settings.tls_ca {
        Some(path) => Some(pem(path, "CERTIFICATE")?),
        None => None,
    };
    let client_tls = match (&settings.tls_cert, &settings.tls_key) {
        (Some(cert), Some(key)) => Some(ClientTlsConfig {
            client_cert: pem(cert, "CERTIFICATE")?,
            client_key: pem(key, "PRIVATE KEY")?,
        }),
        // Settings with one of them are refused when they are read.
        (Some(_), None) | (None, Some(_)) | (None, None) => None,
    };
    Ok(TlsCertificates {
        client_tls,
        root_cert,
    })
}

/// A PEM file that holds a block of this kind. The library takes a file without any for an empty list.
fn pem(path: &Path, kind: &'static str) -> Result<Vec<u8>, QueueError> {
    let unreadable = |source| QueueError::CertificateFile {
        path: path.to_owned(),
        source,
    };
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    let bytes = if size > MOST {
        Vec::new()
    } else {
        std::fs::read(path).map_err(unreadable)?
    };
    let marker = format!("{kind}-----");
    let found = bytes
        .windows(marker.len())
        .any(|window| window == marker.as_bytes());
    if found {
        Ok(bytes)
    } else {
        Err(QueueError::NoCertificate {
            path: path.to_owned(),
            kind,
        })
    }
}
