//! Start of a runner: from its first frame until it can open a cell.

use std::time::Duration;

use sandhog_core::id::clip;
use sandhog_core::units::Millis;
use sandhog_protocol::frames::{
    CgroupSupport, Features, FromRunner, StartZygote, ToRunner, VERSION,
};
use tokio::io::{AsyncRead, AsyncWrite};

use super::caps::caps;
use super::runner_connection::{RunnerConnection, describe_frame};
use super::{Image, SandboxError};

/// Timeout for a runner to report that it is ready.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// Timeout for a runner to start the zygote and import an image's libraries. The runner's own
/// timeout is shorter.
const ZYGOTE_TIMEOUT: Duration = Duration::from_secs(90);

/// Maximum length of a runner's reason for having no zygote, in characters.
const MAX_REASON_LENGTH: usize = 400;

/// Waits until the runner is ready, and starts the zygote if the image has one. Returns the
/// features of kernel and runtime that the runner found.
pub(super) async fn handshake<R, W>(
    connection: &mut RunnerConnection<R, W>,
    image: &Image,
) -> Result<Features, SandboxError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut features = await_ready(connection).await?;
    if let Some(zygote) = zygote_of(image) {
        let frame = ToRunner::StartZygote(Box::new(zygote));
        connection.writer.send(&[frame]).await?;
        await_zygote(connection, &mut features).await?;
    }
    Ok(features)
}

/// Waits for the runner's first frame.
async fn await_ready<R, W>(
    connection: &mut RunnerConnection<R, W>,
) -> Result<Features, SandboxError>
where
    R: AsyncRead + Unpin,
{
    let name = connection.reader.container().to_owned();
    match frame_within(READY_TIMEOUT, connection).await? {
        FromRunner::Ready { version, features } if version == VERSION => Ok(features),
        FromRunner::Ready { version, .. } => Err(SandboxError::RunnerVersion {
            container: name,
            found: version,
        }),
        other => Err(unexpected(name, other)),
    }
}

/// Returns the image's zygote; `None` if it has none.
pub(super) fn zygote_of(image: &Image) -> Option<StartZygote> {
    let (zygote, harness) = image.contract.zygote()?;
    // If the image's default limits exceed its own ceiling, jobs without limits cannot run, and a
    // zygote would be useless.
    let limits = image.contract.default_limits().ok()?;
    let env = image.contract.env.clone();
    Some(StartZygote {
        harness: harness.to_vec(),
        argv: zygote.argv.clone(),
        env: env.into_iter().collect(),
        imports: zygote.imports.clone(),
        caps: caps(&limits).cell,
    })
}

/// Waits until the zygote is ready, and updates the sandbox's features.
async fn await_zygote<R, W>(
    connection: &mut RunnerConnection<R, W>,
    features: &mut Features,
) -> Result<(), SandboxError>
where
    R: AsyncRead + Unpin,
{
    let name = connection.reader.container().to_owned();
    match frame_within(ZYGOTE_TIMEOUT, connection).await? {
        FromRunner::ZygoteReady {
            missing,
            memory_bytes,
        } => {
            features.memory_bytes = memory_bytes;
            if let Some(reason) = missing {
                let reason = clip(&reason, MAX_REASON_LENGTH);
                // Without cgroups for cells, no image has a zygote; the engine logs that once.
                if features.cgroup == CgroupSupport::None {
                    tracing::debug!(container = %name, reason, "programs start cold");
                } else {
                    tracing::warn!(container = %name, reason, "programs start cold");
                }
                let missing = format!("no warm interpreter: {reason}");
                features.missing.push(missing);
            }
            Ok(())
        }
        other => Err(unexpected(name, other)),
    }
}

async fn frame_within<R, W>(
    timeout: Duration,
    connection: &mut RunnerConnection<R, W>,
) -> Result<FromRunner, SandboxError>
where
    R: AsyncRead + Unpin,
{
    match tokio::time::timeout(timeout, connection.reader.recv()).await {
        Ok(received) => received,
        Err(_elapsed) => Err(SandboxError::NotReady {
            container: connection.reader.container().to_owned(),
            within: Millis::from(timeout),
            stderr: connection.reader.stderr_head(),
        }),
    }
}

fn unexpected(container: String, frame: FromRunner) -> SandboxError {
    match frame {
        FromRunner::Fault { message, machine } => SandboxError::Cell {
            container,
            message,
            machine,
        },
        other => SandboxError::ProtocolViolation {
            container,
            frame: describe_frame(&other),
        },
    }
}
