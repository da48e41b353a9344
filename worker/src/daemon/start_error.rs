//! Reasons for which a worker does not start.

use std::io;

use sandhog_core::id::Namespace;
use sandhog_queue::QueueError;

use crate::gpu::GpuError;
use crate::sandbox::SandboxError;
use crate::secrets::SecretError;
use crate::trace::TraceError;

/// Reason for which a worker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Redis cannot be reached, or its configuration may lose jobs.
    #[error("the queue of namespace {namespace} cannot be used")]
    Queue {
        /// The namespace.
        namespace: Namespace,
        /// The cause.
        #[source]
        source: QueueError,
    },
    /// The container engine cannot be used.
    #[error("sandboxes cannot be made")]
    Sandbox(#[source] SandboxError),
    /// The configured GPUs cannot be used.
    #[error("gpus cannot be used")]
    Gpus(#[source] GpuError),
    /// The configured secrets cannot be used.
    #[error("worker.secrets cannot be used")]
    Secrets(#[source] SecretError),
    /// The configured tags offer only GPUs, and no GPU was found.
    #[error("worker.tags offers {tags} alone, and no such gpu was found")]
    NothingOffered {
        /// The configured tags.
        tags: String,
    },
    /// Spans cannot be sent.
    #[error("telemetry cannot be sent")]
    Trace(#[source] TraceError),
    /// The address for health and metrics is in use or invalid.
    #[error("cannot serve health and metrics on {address:?}")]
    Http {
        /// The address.
        address: String,
        /// The error of the system.
        #[source]
        source: io::Error,
    },
}

impl StartError {
    /// Returns a function that maps an error of the queue of this namespace.
    pub(super) fn of_queue(namespace: &Namespace) -> impl FnOnce(QueueError) -> Self + use<> {
        let namespace = namespace.clone();
        move |source| Self::Queue { namespace, source }
    }

    /// Returns advice for the operator.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Queue { source, .. } => source.hint(),
            Self::Sandbox(error) => error.hint(),
            Self::Gpus(error) => Some(error.hint()),
            Self::Secrets(_) => Some(
                "worker.secrets is a folder with a policy.toml: docs/guides/secrets.md shows \
                     one",
            ),
            Self::NothingOffered { .. } => Some(
                "`sandhog doctor` shows which GPUs there are; a worker for CPUs has the tag cpu",
            ),
            Self::Trace(_) => Some(
                "set telemetry.otlp to the address of an OTLP receiver that speaks HTTP, such as \
                 http://127.0.0.1:4318, or to an empty string to turn it off",
            ),
            Self::Http { .. } => {
                Some("set worker.http to a free host:port, or to an empty string to turn it off")
            }
        }
    }
}
