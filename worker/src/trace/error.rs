//! Errors of sending spans.

/// Reason for which spans cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The machine's certificates cannot be read, so no receiver can be trusted.
    #[error("certificates for telemetry.otlp cannot be read")]
    Certificates {
        /// The error of the system.
        #[source]
        source: std::io::Error,
    },
    /// The address or one of the standard variables is invalid.
    #[error("spans cannot be sent to {endpoint:?}")]
    Exporter {
        /// The configured address.
        endpoint: String,
        /// The cause.
        #[source]
        source: opentelemetry_otlp::ExporterBuildError,
    },
}
