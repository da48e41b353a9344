//! Creation of a sandbox over the byte streams of its runner.

use tokio::io::{AsyncRead, AsyncWrite};

use super::container::Container;
use super::handshake::handshake;
use super::runner_connection::{
    AnyReader, AnyRunnerConnection, AnyWriter, RunnerConnection, StderrHead,
};
use super::{Image, Sandbox, SandboxError};

/// Waits until the runner of a container that was just started can take a job, and returns its
/// sandbox. The worker reads the runner's frames from `reader` and writes its own frames to
/// `writer`.
///
/// # Errors
/// If the runner is not ready in time or breaks the protocol.
///
/// # Cancel safety
/// Dropping the future removes the container in the background.
pub async fn open_sandbox(
    container: Container,
    reader: impl AsyncRead + Send + 'static,
    writer: impl AsyncWrite + Send + 'static,
    image: Image,
) -> Result<Sandbox, SandboxError> {
    let reader: AnyReader = Box::pin(reader);
    let writer: AnyWriter = Box::pin(writer);
    let stderr = StderrHead::default();
    let connection = RunnerConnection::new(container.name(), reader, writer, stderr);
    open_connected(container, connection, image).await
}

/// Same as [`open_sandbox`], over a connection that may also keep the runner's standard error.
pub(super) async fn open_connected(
    container: Container,
    mut connection: AnyRunnerConnection,
    image: Image,
) -> Result<Sandbox, SandboxError> {
    let features = handshake(&mut connection, &image).await?;
    tracing::debug!(
        container = container.name(),
        image = %image.name,
        digest = %image.digest,
        "sandbox ready"
    );
    Ok(Sandbox::new(container, connection, image, features))
}
