//! A raw connection to a model server, without a worker or a container in between, for tests of
//! events between two frames.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use sandhog_protocol::model::{self, FromServer, MAX_MODEL_CALL, MAX_MODEL_OUTPUT, ToServer};
use serde_json::Value;

/// Maximum time between two frames of the server.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

/// A server and the worker's end of its descriptor 3. The server is killed on drop.
pub(crate) struct RawConnection {
    server: Child,
    socket: UnixStream,
    received: Vec<u8>,
    next: u64,
}

/// Result of a call.
#[derive(Debug, Default)]
pub(crate) struct CallResult {
    /// Pieces of its stream.
    pub(crate) pieces: Vec<String>,
    /// The answer, or the name and the message of the exception.
    pub(crate) answer: Option<Result<Value, (String, String)>>,
    /// The failure of the connection to the server.
    pub(crate) fault: Option<String>,
}

impl RawConnection {
    /// Starts a program with these arguments.
    pub(crate) fn to(program: &[&str]) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(WAIT_TIMEOUT)).unwrap();
        // A shell moves the socket to descriptor 3, because `Command` can only pass it as standard
        // input.
        let server = Command::new("/bin/sh")
            .args(["-c", "exec \"$@\" 3<&0 </dev/null", "sh"])
            .args(program)
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        Self {
            server,
            socket: ours,
            received: Vec::new(),
            next: 1,
        }
    }

    /// Reads the next frame.
    pub(crate) fn recv(&mut self) -> FromServer {
        let mut piece = vec![0; 64 << 10];
        loop {
            if let Some(frame) = model::take(&mut self.received, MAX_MODEL_OUTPUT).unwrap() {
                return frame;
            }
            let count = self.socket.read(&mut piece).expect("the server answers");
            assert!(count > 0, "the server closed the connection");
            self.received.extend_from_slice(&piece[..count]);
        }
    }

    /// Begins a call with one input and returns its number.
    pub(crate) fn begin(&mut self, target: &str, input: impl Into<Value>, stream: bool) -> u64 {
        let id = self.next;
        self.next += 1;
        self.send(&ToServer::Call {
            id,
            target: target.to_owned(),
            inputs: vec![input.into()],
            batched: false,
            stream,
            timeout_ms: 30_000,
        });
        id
    }

    /// Cancels a call.
    pub(crate) fn cancel(&mut self, id: u64) {
        self.send(&ToServer::Cancel { id });
    }

    /// Collects everything that arrives for a call, which must be the only one.
    pub(crate) fn end(&mut self, call: u64) -> CallResult {
        let mut result = CallResult::default();
        loop {
            match self.recv() {
                FromServer::Chunk { id, text } if id == call => result.pieces.push(text),
                FromServer::Result { id, value, .. } if id == call => {
                    result.answer = Some(Ok(value))
                }
                FromServer::Error { id, exception, .. } if id == call => {
                    result.answer = Some(Err((exception.name, exception.message)));
                }
                FromServer::Fault { id, why } if id == call => result.fault = Some(why),
                FromServer::Done { id } if id == call => return result,
                other => panic!("{other:?} is not of call {call}"),
            }
        }
    }

    /// Begins a call and waits for its end.
    pub(crate) fn call(
        &mut self,
        target: &str,
        input: impl Into<Value>,
        stream: bool,
    ) -> CallResult {
        let id = self.begin(target, input, stream);
        self.end(id)
    }

    fn send(&mut self, frame: &ToServer) {
        let bytes = model::encode(frame, MAX_MODEL_CALL).unwrap();
        self.socket.write_all(&bytes).unwrap();
    }
}

impl Drop for RawConnection {
    fn drop(&mut self) {
        // Also kills all processes that the server started.
        let group = i32::try_from(self.server.id()).unwrap();
        killpg(Pid::from_raw(group), Signal::SIGKILL).ok();
        drop(self.server.wait());
    }
}
