//! The open sandboxes of keepers: their start, their end, and the reason for their end.

use std::collections::HashMap;
use std::io::Cursor;
use std::net::Shutdown;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use sandhog_core::backoff::Backoff;
use sandhog_core::id::clip;
use sandhog_core::units::ByteCount;
use sandhog_protocol::frames::StartZygote;
use sandhog_protocol::keeper::{
    EndStatus, Hello, MAX_STDERR, MAX_ZYGOTE, Open, SandboxEnd, SandboxState, ZygoteProgram,
};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

use super::connection::{KeeperConnection, OpenedSandbox};
use crate::sandbox::background_tasks::BackgroundTasks;
use crate::sandbox::container::Container;
use crate::sandbox::handshake::zygote_of;
use crate::sandbox::{ContainerResource, Image, Sandbox, SandboxError, Shape, open_sandbox};

/// Memory of a keeper's container that no sandbox may claim, for the keeper and what it has not
/// measured. Without it, a sandbox that uses all of its memory would use up that of the container.
const KEEPER_MEMORY: u64 = 64 << 20;

/// Timeout for a keeper to remove a sandbox whose connection is closed.
const END_TIMEOUT: Duration = Duration::from_secs(30);

/// Time between the first two questions for the end of a sandbox. It doubles each time.
const FIRST_END_POLL: Duration = Duration::from_millis(1);

/// Maximum time between two questions.
const MAX_END_POLL: Duration = Duration::from_millis(100);

/// The open sandboxes of one provider. Clones share them.
#[derive(Debug, Clone, Default)]
pub(in crate::sandbox) struct OpenKeeperSandboxes {
    /// The socket of the keeper of each sandbox, by the name of the sandbox.
    sockets: Arc<Mutex<HashMap<String, PathBuf>>>,
}

impl OpenKeeperSandboxes {
    /// Makes a sandbox over a connection to a keeper of `image`, and waits until its runner can
    /// take a job. `resource` is released once the keeper has removed the sandbox.
    ///
    /// # Errors
    /// If the keeper refuses, or the runner is not ready in time. In that case no sandbox is left
    /// behind.
    ///
    /// # Cancel safety
    /// Dropping the future removes the sandbox in the background.
    pub(in crate::sandbox) async fn open(
        &self,
        connection: KeeperConnection,
        image: Image,
        shape: &Shape,
        background: &BackgroundTasks,
        resource: Option<ContainerResource>,
    ) -> Result<Sandbox, SandboxError> {
        let socket = connection.socket().to_owned();
        let room = room_of(connection.hello());
        let request = Open {
            zygote: zygote_program(&image),
            ..open_request(shape, connection.hello())
        };
        let OpenedSandbox {
            name,
            stream,
            received,
        } = connection.open(request).await?;
        let (stream, closer) = with_closer(stream).map_err(|source| SandboxError::Connection {
            container: name.clone(),
            source: source.into(),
        })?;
        self.sockets().insert(name.clone(), socket.clone());
        let container = Container::new(name.clone(), background.clone(), {
            let (sandboxes, name, socket) = (self.clone(), name.clone(), socket.clone());
            move || async move {
                // If the keeper has closed the connection already, there is nothing to close.
                closer.shutdown(Shutdown::Both).ok();
                drop(closer);
                // A keeper that is gone has no sandbox.
                end_of(&socket, &name).await;
                sandboxes.sockets().remove(&name);
                drop(resource);
            }
        });
        let (reader, writer) = stream.into_split();
        let reader = Cursor::new(received).chain(reader);
        match open_sandbox(container, reader, writer, image).await {
            // Only the keeper has the standard error of the sandbox.
            Err(SandboxError::Died { container, .. }) => Err(SandboxError::Died {
                stderr: reason_of(end_of(&socket, &name).await.as_ref()),
                container,
            }),
            Ok(mut sandbox) => {
                sandbox.set_room(Some(room));
                Ok(sandbox)
            }
            Err(error) => Err(error),
        }
    }

    /// Returns whether the sandbox of that name ended because memory was used up; `None` if no such
    /// sandbox is open.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub(in crate::sandbox) async fn oom_of(&self, name: &str) -> Option<bool> {
        let socket = self.sockets().get(name).cloned()?;
        let end = end_of(&socket, name).await;
        Some(end.is_some_and(|end| end.oom))
    }

    fn sockets(&self) -> MutexGuard<'_, HashMap<String, PathBuf>> {
        self.sockets
            .lock()
            .expect("no code panics while it holds this lock")
    }
}

/// Returns the memory that all sandboxes of a keeper may hold together: that of its container,
/// without that of the keeper and its zygote. The largest number stands for a container without a
/// cap.
fn room_of(hello: &Hello) -> ByteCount {
    let own = hello
        .own_memory
        .unwrap_or_default()
        .saturating_add(KEEPER_MEMORY);
    let most = hello.memory_max;
    ByteCount(most.map_or(u64::MAX, |most| most.saturating_sub(own)))
}

/// Returns the request for a sandbox of this shape. The caps are lowered to those of the keeper's
/// container, which bounds the sandbox in any case.
fn open_request(shape: &Shape, hello: &Hello) -> Open {
    let memory = hello.memory_max.map_or(shape.memory.0, |most| {
        shape.memory.0.min(most.saturating_sub(KEEPER_MEMORY))
    });
    let most_pids = hello
        .pids_max
        .map_or(u32::MAX, |most| u32::try_from(most).unwrap_or(u32::MAX));
    let most_cpu = hello.cpu_millis.unwrap_or(u64::MAX);
    Open {
        memory_bytes: memory.max(Open::MIN_MEMORY),
        cpu_millis: shape.cpu_millis.0.min(most_cpu).max(1),
        pids: shape.pids.min(most_pids).max(Open::MIN_PIDS),
        gpus: shape.gpus.clone(),
        zygote: None,
    }
}

/// Returns the program of the image's zygote. `None` if the image has none, or one that is too
/// large to be stated to a keeper, which the sandbox's runner then starts.
fn zygote_program(image: &Image) -> Option<ZygoteProgram> {
    let StartZygote {
        argv,
        env,
        imports,
        caps,
        ..
    } = zygote_of(image)?;
    let program = ZygoteProgram {
        argv,
        env,
        imports,
        cpu_millis: caps.cpu_millis,
    };
    (program.size() <= MAX_ZYGOTE).then_some(program)
}

/// Returns the stream and a second descriptor of it, with which both directions can be closed.
fn with_closer(
    stream: UnixStream,
) -> std::io::Result<(UnixStream, std::os::unix::net::UnixStream)> {
    let stream = stream.into_std()?;
    let closer = stream.try_clone()?;
    Ok((UnixStream::from_std(stream)?, closer))
}

/// Waits until a sandbox has ended, and returns how. Returns `None` if the keeper is gone, does not
/// know, or has not ended the sandbox within [`END_TIMEOUT`].
async fn end_of(socket: &Path, name: &str) -> Option<SandboxEnd> {
    let asked = async {
        let mut keeper = KeeperConnection::connect(socket).await?;
        let mut backoff = Backoff::new(FIRST_END_POLL, MAX_END_POLL);
        loop {
            match keeper.ask(name).await? {
                SandboxState::Running => {}
                SandboxState::Ended(end) => return Ok::<_, SandboxError>(Some(end)),
                SandboxState::Unknown => return Ok(None),
            }
            tokio::time::sleep(backoff.next_wait()).await;
        }
    };
    match tokio::time::timeout(END_TIMEOUT, asked).await {
        Ok(Ok(end)) => end,
        Ok(Err(error)) => {
            tracing::debug!(
                sandbox = name,
                error = &error as &dyn std::error::Error,
                "the keeper does not say how a sandbox ended"
            );
            None
        }
        Err(_elapsed) => {
            tracing::warn!(
                sandbox = name,
                socket = %socket.display(),
                "the keeper has not ended a sandbox in time"
            );
            None
        }
    }
}

/// Returns how a runner ended, preceded by a colon, for an error message.
fn reason_of(end: Option<&SandboxEnd>) -> String {
    let Some(end) = end else {
        return String::new();
    };
    let status = match &end.status {
        EndStatus::Exited(code) => format!("its runner exited with {code}"),
        EndStatus::Signaled(signal) => format!("signal {signal} killed its runner"),
        EndStatus::NotStarted(reason) => format!("its runner was not started ({reason})"),
    };
    let oom = if end.oom { ", memory was used up" } else { "" };
    match end.stderr.trim() {
        "" => format!(": {status}{oom}"),
        text => format!(": {status}{oom}: {}", clip(text, MAX_STDERR)),
    }
}

#[cfg(test)]
mod tests {
    use sandhog_core::units::CpuMillis;

    use super::*;

    fn shape() -> Shape {
        Shape {
            runtime: "runc".parse().unwrap(),
            memory: ByteCount::mib(2304),
            cpu_millis: CpuMillis(4000),
            pids: 4352,
            caps_the_job: false,
            gpus: Vec::new(),
        }
    }

    #[test]
    fn caps_are_lowered_to_those_of_the_container() {
        let open = open_request(&shape(), &Hello::default());
        assert_eq!(
            (open.memory_bytes, open.cpu_millis, open.pids),
            (2304 << 20, 4000, 4352)
        );
        let small = Hello {
            memory_max: Some(1 << 30),
            cpu_millis: Some(1500),
            pids_max: Some(100),
            ..Hello::default()
        };
        let open = open_request(&shape(), &small);
        assert_eq!(
            (open.memory_bytes, open.cpu_millis, open.pids),
            (960 << 20, 1500, 100)
        );
        let tiny = Hello {
            memory_max: Some(1),
            pids_max: Some(1),
            ..Hello::default()
        };
        let open = open_request(&shape(), &tiny);
        assert_eq!(
            (open.memory_bytes, open.pids),
            (Open::MIN_MEMORY, Open::MIN_PIDS)
        );
    }

    #[test]
    fn the_room_of_sandboxes_is_that_of_the_container_without_the_keepers_own() {
        assert_eq!(room_of(&Hello::default()), ByteCount(u64::MAX));
        let mut hello = Hello {
            memory_max: Some(1 << 30),
            ..Hello::default()
        };
        assert_eq!(room_of(&hello), ByteCount::mib(960));
        hello.own_memory = Some(160 << 20);
        assert_eq!(room_of(&hello), ByteCount::mib(800));
        hello.memory_max = Some(1);
        assert_eq!(room_of(&hello), ByteCount(0));
    }

    #[test]
    fn an_end_is_told_with_its_standard_error() {
        let end = SandboxEnd {
            status: EndStatus::Exited(70),
            oom: true,
            killed: false,
            stderr: "cannot mount\n".to_owned(),
        };
        assert_eq!(
            reason_of(Some(&end)),
            ": its runner exited with 70, memory was used up: cannot mount"
        );
        assert_eq!(reason_of(None), "");
    }
}
