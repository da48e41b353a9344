//! One container of an image in which a keeper makes sandboxes.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::container::AttachContainerResults;
use bollard::errors::Error as DockerError;
use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{AttachContainerOptionsBuilder, StopContainerOptionsBuilder};
use futures_util::StreamExt;
use sandhog_core::error_chain::error_chain;
use sandhog_core::id::clip;
use sandhog_core::units::{ByteCount, CpuMillis};
use sandhog_protocol::install::{KEEP_ARGUMENT, WHILE_STDIN_ARGUMENT};
use tokio::time::Instant;

use super::Engine;
use super::bind_mount::bind_mount;
use super::container_spec::container_spec;
use super::labels::{KEEPER_ROLE, ROLE_LABEL};
use crate::sandbox::container::Container;
use crate::sandbox::keepers::KeeperConnection;
use crate::sandbox::runner_connection::StderrHead;
use crate::sandbox::{CONTAINER_MEMORY, Image, SandboxError, Shape};

/// The directory in a keeper's container that holds its socket.
const SOCKET_DIR: &str = "/run/sandhog";

/// File name of a keeper's socket. Short, because the kernel limits the path of a socket to 107
/// bytes.
const SOCKET_NAME: &str = "keeper.sock";

/// Processes and threads of all sandboxes of a keeper together. Each sandbox has its own cap too.
const KEEPER_PIDS: u32 = 32_768;

/// Timeout for a keeper to accept connections after its container was started.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Time between two attempts to connect to a keeper that starts.
const START_POLL: Duration = Duration::from_millis(5);

/// Number of attempts between two checks that the container still runs.
const POLLS_PER_CHECK: u32 = 20;

/// Time between SIGTERM and SIGKILL for a keeper that is stopped, in seconds. It has no sandboxes
/// then.
const STOP_SECONDS: i32 = 5;

/// Maximum length of one piece of a keeper's output in the log.
const LOG_LENGTH: usize = 2048;

/// The caps of a keeper's container: those of all sandboxes together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeeperCaps {
    /// Memory.
    pub(super) memory: ByteCount,
    /// CPU.
    pub(super) cpu_millis: CpuMillis,
}

/// A running container with a keeper. When the last clone of its `Arc` is dropped, the keeper gets
/// SIGTERM, and its container is removed in the background. If this process is killed, the engine
/// closes the keeper's standard input, which ends the keeper and its sandboxes.
#[derive(Debug)]
pub(super) struct KeeperContainer {
    name: String,
    socket: PathBuf,
    _container: Container,
}

impl KeeperContainer {
    /// Starts a keeper of an image, whose socket is in the new directory `folder`. The runtime and
    /// the caps of one sandbox are those of `shape`.
    ///
    /// # Errors
    /// If the engine rejects a request, or the keeper does not accept connections in time. In that
    /// case no container is left behind.
    ///
    /// # Cancel safety
    /// Not cancel safe: a create request that is dropped may leave a container to the reaper.
    pub(super) async fn start(
        engine: &Engine,
        image: &Image,
        shape: &Shape,
        caps: KeeperCaps,
        folder: &Path,
    ) -> Result<Self, SandboxError> {
        let name = engine.next_name();
        let uid = make_folder(folder).map_err(|source| SandboxError::SocketDirectory {
            path: folder.to_owned(),
            source,
        })?;
        let body = keeper_spec(engine, image, shape, caps, folder, uid);
        // Before the container exists: a create request that fails may have created it
        // nevertheless.
        let container = Container::new(name.clone(), engine.background().clone(), {
            let (engine, name, folder) = (engine.clone(), name.clone(), folder.to_owned());
            move || async move {
                let options = StopContainerOptionsBuilder::new().t(STOP_SECONDS).build();
                // The removal that follows ends the keeper in any case.
                drop(engine.docker().stop_container(&name, Some(options)).await);
                engine.discard(&name).await;
                drop(tokio::fs::remove_dir_all(&folder).await);
            }
        });
        let options = AttachContainerOptionsBuilder::new()
            .stream(true)
            .stdin(true)
            .stderr(true)
            .build();
        let attached = engine.create_and_start(&name, body, options).await?;
        let stderr = StderrHead::default();
        tokio::spawn(log_output(stderr.clone(), name.clone(), attached));
        let socket = folder.join(SOCKET_NAME);
        await_keeper(engine, &name, &socket, &stderr).await?;
        Ok(Self {
            name,
            socket,
            _container: container,
        })
    }

    /// The name of the container.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The path of the keeper's socket.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }
}

/// Makes the directory of a keeper's socket, and returns the worker's user. Root in the container
/// may be another user, and lacks the capability to pass permissions, so the directory itself is
/// open to all. Its parent is the worker's alone.
fn make_folder(folder: &Path) -> std::io::Result<u32> {
    std::fs::create_dir(folder)?;
    std::fs::set_permissions(folder, Permissions::from_mode(0o777))?;
    Ok(std::fs::metadata(folder)?.uid())
}

/// Returns the body of the request that creates a keeper's container. It is that of a sandbox's
/// container, with the caps of all sandboxes, and with the directory of the socket.
fn keeper_spec(
    engine: &Engine,
    image: &Image,
    shape: &Shape,
    caps: KeeperCaps,
    folder: &Path,
    uid: u32,
) -> ContainerCreateBody {
    let facts = engine.facts();
    // The runner's part and the largest sandbox must fit, however small the pool is.
    let memory = caps.memory.0.saturating_add(CONTAINER_MEMORY.0);
    let memory = memory.max(shape.memory.0.saturating_add(CONTAINER_MEMORY.0));
    let whole = Shape {
        memory: ByteCount(memory.min(facts.memory.0)),
        cpu_millis: caps.cpu_millis,
        pids: KEEPER_PIDS.max(shape.pids),
        // The engine removes the container when it ends.
        caps_the_job: false,
        ..shape.clone()
    };
    let mut spec = container_spec(
        &whole,
        engine.attach(),
        facts,
        engine.owner_labels(),
        engine.worker(),
        image,
    );
    if let Some(labels) = &mut spec.labels {
        labels.insert(ROLE_LABEL.to_owned(), KEEPER_ROLE.to_owned());
    }
    let host = spec.host_config.unwrap_or_default();
    ContainerCreateBody {
        cmd: Some(vec![
            KEEP_ARGUMENT.to_owned(),
            format!("{SOCKET_DIR}/{SOCKET_NAME}"),
            "--peer".to_owned(),
            uid.to_string(),
            WHILE_STDIN_ARGUMENT.to_owned(),
        ]),
        attach_stdout: Some(false),
        host_config: Some(HostConfig {
            mounts: Some(vec![bind_mount(folder, SOCKET_DIR)]),
            ..host
        }),
        ..spec
    }
}

/// Waits until the keeper accepts connections.
async fn await_keeper(
    engine: &Engine,
    name: &str,
    socket: &Path,
    stderr: &StderrHead,
) -> Result<(), SandboxError> {
    let not_started = |reason: String| SandboxError::KeeperNotStarted {
        container: name.to_owned(),
        reason,
    };
    let until = Instant::now() + START_TIMEOUT;
    let mut polls = 0;
    loop {
        let error = match KeeperConnection::connect(socket).await {
            Ok(_connection) => return Ok(()),
            // The socket does not exist yet, or is being made.
            Err(error @ SandboxError::KeeperAway { .. }) => error,
            Err(error) => return Err(error),
        };
        polls += 1;
        if polls % POLLS_PER_CHECK == 0 && has_ended(engine, name).await {
            return Err(not_started(stderr.text()));
        }
        if Instant::now() >= until {
            let reason = format!(": {}{}", error_chain(&error), stderr.text());
            return Err(not_started(reason));
        }
        tokio::time::sleep(START_POLL).await;
    }
}

async fn has_ended(engine: &Engine, name: &str) -> bool {
    match engine.docker().inspect_container(name, None).await {
        Ok(found) => found
            .state
            .is_some_and(|state| state.running == Some(false)),
        Err(DockerError::DockerResponseServerError {
            status_code: 404, ..
        }) => true,
        // The engine may answer the next time.
        Err(_busy) => false,
    }
}

/// Logs the output of a keeper, and keeps its first bytes. Holds its standard input open until the
/// container has ended.
async fn log_output(head: StderrHead, container: String, attached: AttachContainerResults) {
    let AttachContainerResults { mut output, input } = attached;
    while let Some(Ok(piece)) = output.next().await {
        let bytes = piece.into_bytes();
        let text = String::from_utf8_lossy(&bytes);
        tracing::info!(container, text = clip(text.trim(), LOG_LENGTH), "keeper");
        head.push(&bytes);
    }
    drop(input);
}
