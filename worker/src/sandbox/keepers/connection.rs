//! One connection to a keeper, until it becomes the connection of a runner.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sandhog_core::error_chain::error_chain;
use sandhog_core::id::clip;
use sandhog_protocol::frames;
use sandhog_protocol::keeper::{
    FromKeeper, Hello, MAX_REPLY, Open, SandboxState, ToKeeper, VERSION, encode, take,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::sandbox::{KeeperProtocol, KeeperRefusal, SandboxError};

/// Timeout for connecting to a keeper and for its first frame.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// Timeout for the answer to a request.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);

/// Maximum length of a keeper's reason in an error, in characters.
const MAX_REASON_LENGTH: usize = 400;

/// A connection to a keeper whose version is the worker's.
#[derive(Debug)]
pub(in crate::sandbox) struct KeeperConnection {
    socket: PathBuf,
    stream: UnixStream,
    /// Bytes that were received and belong to no frame yet.
    buffer: Vec<u8>,
    hello: Hello,
}

/// The streams of a sandbox that a keeper has made.
#[derive(Debug)]
pub(super) struct OpenedSandbox {
    /// The name of the sandbox.
    pub(super) name: String,
    /// The connection, which belongs to the sandbox's runner now.
    pub(super) stream: UnixStream,
    /// The first bytes that the runner sent.
    pub(super) received: Vec<u8>,
}

impl KeeperConnection {
    /// Connects to the keeper at a socket and reads its facts.
    ///
    /// # Errors
    /// [`SandboxError::KeeperAway`] if nothing listens on the socket, and
    /// [`SandboxError::NotKeeper`], [`SandboxError::KeeperVersion`] or
    /// [`SandboxError::KeeperRefused`] if the process that listens cannot be used.
    ///
    /// # Cancel safety
    /// Cancel safe: dropping the future closes the connection.
    pub(in crate::sandbox) async fn connect(socket: &Path) -> Result<Self, SandboxError> {
        Self::connect_within(socket, HELLO_TIMEOUT).await
    }

    async fn connect_within(socket: &Path, timeout: Duration) -> Result<Self, SandboxError> {
        let greeted = tokio::time::timeout(timeout, Self::greet(socket)).await;
        greeted.unwrap_or_else(|_elapsed| {
            let seconds = timeout.as_secs_f32();
            Err(not_keeper(
                socket,
                format!("it sent nothing within {seconds} s"),
            ))
        })
    }

    async fn greet(socket: &Path) -> Result<Self, SandboxError> {
        let stream = UnixStream::connect(socket)
            .await
            .map_err(|source| away(socket, source))?;
        let mut connection = Self {
            socket: socket.to_owned(),
            stream,
            buffer: Vec::new(),
            hello: Hello::default(),
        };
        match connection.receive().await? {
            FromKeeper::Hello(hello) => connection.hello = *hello,
            FromKeeper::Refused { reason, .. } => {
                return Err(SandboxError::KeeperRefused {
                    socket: socket.display().to_string(),
                    reason: clip(&reason, MAX_REASON_LENGTH),
                    at: KeeperRefusal::Connection,
                    // No request was made, so no job is the reason.
                    retryable: true,
                });
            }
            FromKeeper::Opened { .. } | FromKeeper::State { .. } => {
                return Err(not_keeper(socket, "its first frame is not `hello`"));
            }
        }
        connection.check_versions()?;
        Ok(connection)
    }

    fn check_versions(&self) -> Result<(), SandboxError> {
        let Hello {
            version,
            runner_version,
            ..
        } = self.hello;
        let checks = [
            (KeeperProtocol::Keeper, version, VERSION),
            (KeeperProtocol::Runner, runner_version, frames::VERSION),
        ];
        for (protocol, found, wanted) in checks {
            if found != wanted {
                return Err(SandboxError::KeeperVersion {
                    socket: self.socket.display().to_string(),
                    protocol,
                    found,
                    wanted,
                });
            }
        }
        Ok(())
    }

    /// The facts of the keeper.
    pub(in crate::sandbox) fn hello(&self) -> &Hello {
        &self.hello
    }

    /// The path of the keeper's socket.
    pub(in crate::sandbox) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Makes a sandbox and gives it this connection.
    ///
    /// # Errors
    /// [`SandboxError::KeeperRefused`] if the keeper does not make it, or the connection failed.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection, and the keeper removes the sandbox.
    pub(super) async fn open(mut self, open: Open) -> Result<OpenedSandbox, SandboxError> {
        let reply = self.request(&ToKeeper::Open(open)).await?;
        match reply {
            FromKeeper::Opened { sandbox } => Ok(OpenedSandbox {
                name: sandbox,
                stream: self.stream,
                received: self.buffer,
            }),
            FromKeeper::Refused { reason, retryable } => Err(SandboxError::KeeperRefused {
                socket: self.socket.display().to_string(),
                reason: clip(&reason, MAX_REASON_LENGTH),
                at: KeeperRefusal::Request,
                retryable,
            }),
            FromKeeper::Hello(_) | FromKeeper::State { .. } => Err(not_keeper(
                &self.socket,
                "it answered `open` with another frame",
            )),
        }
    }

    /// Asks for the state of a sandbox.
    ///
    /// # Errors
    /// If the connection failed, or the keeper sent another frame.
    ///
    /// # Cancel safety
    /// Not cancel safe: the connection must not be used after the future was dropped.
    pub(super) async fn ask(&mut self, name: &str) -> Result<SandboxState, SandboxError> {
        let sandbox = name.to_owned();
        match self.request(&ToKeeper::Ask { sandbox }).await? {
            FromKeeper::State { sandbox, state } if sandbox == name => Ok(state),
            FromKeeper::Refused { reason, retryable } => Err(SandboxError::KeeperRefused {
                socket: self.socket.display().to_string(),
                reason: clip(&reason, MAX_REASON_LENGTH),
                at: KeeperRefusal::Request,
                retryable,
            }),
            FromKeeper::State { .. } | FromKeeper::Hello(_) | FromKeeper::Opened { .. } => Err(
                not_keeper(&self.socket, "it answered `ask` with another frame"),
            ),
        }
    }

    async fn request(&mut self, request: &ToKeeper) -> Result<FromKeeper, SandboxError> {
        let exchanged = tokio::time::timeout(REPLY_TIMEOUT, async {
            let sent = self.stream.write_all(&encode(request)).await;
            sent.map_err(|source| away(&self.socket, source))?;
            self.receive().await
        });
        exchanged.await.unwrap_or_else(|_elapsed| {
            let seconds = REPLY_TIMEOUT.as_secs();
            let reason = format!("it did not answer a request within {seconds} s");
            Err(not_keeper(&self.socket, reason))
        })
    }

    async fn receive(&mut self) -> Result<FromKeeper, SandboxError> {
        loop {
            match take(&mut self.buffer, MAX_REPLY) {
                Ok(Some(frame)) => return Ok(frame),
                Ok(None) => {}
                Err(error) => return Err(not_keeper(&self.socket, error_chain(&error))),
            }
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) => {
                    let closed = io::Error::from(io::ErrorKind::UnexpectedEof);
                    return Err(away(&self.socket, closed));
                }
                Ok(_more) => {}
                Err(source) => return Err(away(&self.socket, source)),
            }
        }
    }
}

fn away(socket: &Path, source: io::Error) -> SandboxError {
    SandboxError::KeeperAway {
        socket: socket.display().to_string(),
        source: source.into(),
    }
}

fn not_keeper(socket: &Path, reason: impl Display) -> SandboxError {
    SandboxError::NotKeeper {
        socket: socket.display().to_string(),
        reason: clip(&reason.to_string(), MAX_REASON_LENGTH),
    }
}

#[cfg(test)]
mod tests {
    use sandhog_protocol::keeper::{EndStatus, SandboxEnd};
    use tokio::net::UnixListener;

    use super::*;

    fn hello() -> Hello {
        Hello {
            version: VERSION,
            runner_version: frames::VERSION,
            ..Hello::default()
        }
    }

    /// Serves one connection with these bytes, and keeps it open if `stays`.
    fn serve(folder: &tempfile::TempDir, bytes: Vec<u8>, stays: bool) -> PathBuf {
        let socket = folder.path().join("a.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(&bytes).await.unwrap();
            if stays {
                std::future::pending::<()>().await;
            }
        });
        socket
    }

    async fn error_of(bytes: Vec<u8>, stays: bool) -> SandboxError {
        let folder = tempfile::tempdir().unwrap();
        let socket = serve(&folder, bytes, stays);
        let error = KeeperConnection::connect(&socket).await.unwrap_err();
        let message = error.to_string();
        assert!(message.contains(&socket.display().to_string()), "{message}");
        error
    }

    fn hello_bytes(hello: Hello) -> Vec<u8> {
        encode(&FromKeeper::Hello(Box::new(hello)))
    }

    #[tokio::test]
    async fn processes_that_are_no_keeper_of_this_version_are_told_apart() {
        let older = Hello {
            version: VERSION - 1,
            ..hello()
        };
        let error = error_of(hello_bytes(older), true).await;
        let message = error.to_string();
        let (found, wanted) = (VERSION - 1, VERSION);
        for want in [
            format!("version {found} of the keeper protocol"),
            format!("version {wanted} is required"),
        ] {
            assert!(message.contains(&want), "{message}");
        }
        let runner = Hello {
            runner_version: 1,
            ..hello()
        };
        let error = error_of(hello_bytes(runner), true).await;
        assert!(
            matches!(error, SandboxError::KeeperVersion { .. }),
            "{error}"
        );
        for (case, bytes) in [
            ("text", b"HTTP/1.1 400 Bad Request\r\n".to_vec()),
            ("no map", vec![0, 0, 0, 1, 0xc1]),
            (
                "another frame",
                encode(&FromKeeper::Opened {
                    sandbox: String::new(),
                }),
            ),
        ] {
            let error = error_of(bytes, true).await;
            assert!(
                matches!(error, SandboxError::NotKeeper { .. }),
                "{case}: {error}"
            );
            assert!(error.is_keeper_away(), "{case}");
        }
        let refused = encode(&FromKeeper::Refused {
            reason: "the user 5 may not use this keeper".to_owned(),
            retryable: false,
        });
        let error = error_of(refused, false).await;
        assert!(error.to_string().contains("the user 5"), "{error}");
        let error = error_of(Vec::new(), false).await;
        assert!(matches!(error, SandboxError::KeeperAway { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_silent_process_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let socket = serve(&folder, Vec::new(), true);
        let timeout = Duration::from_millis(100);
        let connected = KeeperConnection::connect_within(&socket, timeout).await;
        let message = connected.unwrap_err().to_string();
        assert!(message.contains("within 0.1 s"), "{message}");
    }

    #[tokio::test]
    async fn a_missing_socket_is_a_keeper_that_is_away() {
        let socket = Path::new("/nonexistent/python.sock");
        let error = KeeperConnection::connect(socket).await.unwrap_err();
        assert!(error.is_keeper_away(), "{error}");
        assert_eq!(error.code(), "keeper_away");
    }

    #[tokio::test]
    async fn the_first_bytes_of_the_runner_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let end = SandboxEnd {
            status: EndStatus::Exited(70),
            oom: false,
            killed: false,
            stderr: String::new(),
        };
        let mut bytes = hello_bytes(hello());
        bytes.extend(encode(&FromKeeper::State {
            sandbox: "a-1".to_owned(),
            state: SandboxState::Ended(end.clone()),
        }));
        bytes.extend(encode(&FromKeeper::Opened {
            sandbox: "a-2".to_owned(),
        }));
        bytes.extend(b"of the runner");
        let socket = serve(&folder, bytes, true);
        let mut connection = KeeperConnection::connect(&socket).await.unwrap();
        let state = connection.ask("a-1").await.unwrap();
        assert_eq!(state, SandboxState::Ended(end));
        let opened = connection.open(Open::default()).await.unwrap();
        assert_eq!(opened.name, "a-2");
        assert_eq!(opened.received, b"of the runner");
    }
}
