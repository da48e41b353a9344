//! Certificates for TLS connections, read once when the queue is connected.
//!
//! The server's certificate is always verified, against the configured authority or else against
//! the authorities of the system. The verification cannot be turned off.

use std::path::Path;

use redis::{ClientTlsConfig, TlsCertificates};

use crate::QueueError;
use sandhog_config::RedisSettings;

/// Maximum size of a certificate or key file, in bytes.
const PEM_FILE_BYTES_MAX: u64 = 1 << 20;

/// Reads the files that `settings` name. Also installs ring as the default cryptography provider of
/// the process, unless one is installed already.
pub(crate) fn tls_certificates(settings: &RedisSettings) -> Result<TlsCertificates, QueueError> {
    // An error means that a provider is installed already; it is kept.
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
        // The configuration rejects settings that have only one of the two.
        (Some(_), None) | (None, Some(_)) | (None, None) => None,
    };
    Ok(TlsCertificates {
        client_tls,
        root_cert,
    })
}

/// Reads a PEM file that must contain a block of this kind. The check is made here because the
/// library accepts a file without any block as an empty list.
fn pem(path: &Path, kind: &'static str) -> Result<Vec<u8>, QueueError> {
    let unreadable = |source| QueueError::CertificateFile {
        path: path.to_owned(),
        source,
    };
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    let bytes = if size > PEM_FILE_BYTES_MAX {
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
