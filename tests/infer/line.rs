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
use sandhog_runner::model::{self, FromServer, MAX_CALL, MAX_SAID, ToServer};
use serde_json::Value;

/// Maximum time between two frames of the server.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server and the worker's end of its descriptor 3. The server is killed on drop.
pub(crate) struct Line {
    server: Child,
    socket: UnixStream,
    heard: Vec<u8>,
    next: u64,
}

/// Result of a call.
#[derive(Debug, Default)]
pub(crate) struct Came {
    /// Pieces of its stream.
    pub(crate) pieces: Vec<String>,
    /// The answer, or the name and the message of the exception.
    pub(crate) answer: Option<Result<Value, (String, String)>>,
    /// The failure of the connection to the server.
    pub(crate) fault: Option<String>,
}

impl Line {
    /// Starts a program with these arguments.
    pub(crate) fn to(program: &[&str]) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(PATIENCE)).unwrap();
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
            heard: Vec::new(),
            next: 1,
        }
    }

    /// Reads the next frame.
    pub(crate) fn hear(&mut self) -> FromServer {
        let mut piece = vec![0; 64 << 10];
        loop {
            if let Some(frame) = model::take(&mut self.heard, MAX_SAID).unwrap() {
                return frame;
            }
            let count = self.socket.read(&mut piece).expect("the server answers");
            assert!(count > 0, "the server closed the connection");
            self.heard.extend_from_slice(&piece[..count]);
        }
    }

    /// Begins a call with one input and returns its number.
    pub(crate) fn begin(&mut self, target: &str, input: impl Into<Value>, stream: bool) -> u64 {
        let id = self.next;
        self.next += 1;
        self.say(&ToServer::Call {
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
        self.say(&ToServer::Cancel { id });
    }

    /// Collects everything that arrives for a call, which must be the only one.
    pub(crate) fn end(&mut self, call: u64) -> Came {
        let mut came = Came::default();
        loop {
            match self.hear() {
                FromServer::Chunk { id, text } if id == call => came.pieces.push(text),
                FromServer::Result { id, value, .. } if id == call => came.answer = Some(Ok(value)),
                FromServer::Error { id, exception, .. } if id == call => {
                    came.answer = Some(Err((exception.name, exception.message)));
                }
                FromServer::Fault { id, why } if id == call => came.fault = Some(why),
                FromServer::Done { id } if id == call => return came,
                other => panic!("{other:?} is not of call {call}"),
            }
        }
    }

    /// Begins a call and waits for its end.
    pub(crate) fn call(&mut self, target: &str, input: impl Into<Value>, stream: bool) -> Came {
        let id = self.begin(target, input, stream);
        self.end(id)
    }

    fn say(&mut self, frame: &ToServer) {
        let bytes = model::encode(frame, MAX_CALL).unwrap();
        self.socket.write_all(&bytes).unwrap();
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // Also kills all processes that the server started.
        let group = i32::try_from(self.server.id()).unwrap();
        killpg(Pid::from_raw(group), Signal::SIGKILL).ok();
        drop(self.server.wait());
    }
}
