//! Connections of a worker to a keeper, and to the runner of a sandbox that the keeper made.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that panics fails the test that called it, which is its purpose"
)]

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use sandhog_protocol::frames::{
    self, Call, CallCaps, CallId, CallReport, CellCaps, CloseCell, Features, FromRunner,
    HarnessRequest, OpenCell, Program, StartZygote, Stream, ToRunner,
};
use sandhog_protocol::install::INSTALL_DIR;
use sandhog_protocol::keeper::{self, FromKeeper, MAX_REPLY, Open, ToKeeper, ZygoteProgram};

use crate::keeper_fixture::AMPLE;

/// Caps of a cell in a sandbox with ample caps.
const CELL_CAPS: CellCaps = CellCaps {
    cpu_millis: 1000,
    memory_bytes: 128 << 20,
    stack_bytes: 8 << 20,
    pids: 32,
    scratch_bytes: 16 << 20,
    scratch_inodes: 1000,
};

/// Caps of a call in such a cell.
const CALL_CAPS: CallCaps = CallCaps {
    wall_ms: 60_000,
    cpu_ms: 60_000,
    output_bytes: 1 << 20,
    output_total_bytes: 1 << 20,
    grace_ms: 100,
};

/// A connection of a worker to a keeper.
pub(crate) struct WorkerConnection {
    stream: UnixStream,
    input: Vec<u8>,
}

impl WorkerConnection {
    /// Connects to a keeper and reads nothing. A read fails after `timeout`.
    pub(crate) fn new(socket: &Path, timeout: Duration) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(timeout)).unwrap();
        Self {
            stream,
            input: Vec::new(),
        }
    }

    /// Sends a frame to the keeper.
    pub(crate) fn send(&mut self, frame: &ToKeeper) {
        self.write(&keeper::encode(frame));
    }

    /// Sends bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Receives a frame of the keeper. `None` at the end of the stream.
    pub(crate) fn receive(&mut self) -> Option<FromKeeper> {
        loop {
            if let Some(frame) = keeper::take(&mut self.input, MAX_REPLY).unwrap() {
                return Some(frame);
            }
            self.fill()?;
        }
    }

    /// Receives the reason for which the keeper refuses, and whether a retry may succeed.
    pub(crate) fn refusal(&mut self) -> (String, bool) {
        match self.receive() {
            Some(FromKeeper::Refused { reason, retryable }) => (reason, retryable),
            other => panic!("unexpected frame {other:?}"),
        }
    }

    /// Sends a frame to the runner.
    pub(crate) fn send_to_runner(&mut self, frame: &ToRunner) {
        self.write(&frames::encode(frame));
    }

    /// Receives a frame of the runner. `None` at the end of the stream.
    pub(crate) fn receive_from_runner(&mut self) -> Option<FromRunner> {
        loop {
            if let Some(frame) = frames::take(&mut self.input).unwrap() {
                return Some(frame);
            }
            self.fill()?;
        }
    }

    fn fill(&mut self) -> Option<()> {
        let mut piece = [0; 64 << 10];
        let count = match self.stream.read(&mut piece) {
            // The keeper closed the connection before it had read all bytes.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => 0,
            count => count.unwrap(),
        };
        self.input.extend_from_slice(&piece[..count]);
        (count > 0).then_some(())
    }
}

/// A sandbox and the connection to its runner.
pub(crate) struct SandboxConnection {
    /// Name of the sandbox.
    pub(crate) sandbox: String,
    /// Features that the runner reported.
    pub(crate) features: Features,
    /// The connection.
    pub(crate) connection: WorkerConnection,
}

impl SandboxConnection {
    /// Starts a zygote. Returns the reason that there is none, if there is none.
    pub(crate) fn start_zygote(&mut self, imports: &[&str]) -> Option<String> {
        self.connection.send_to_runner(&start_zygote(imports));
        match self.connection.receive_from_runner() {
            Some(FromRunner::ZygoteReady { missing, .. }) => missing,
            other => panic!("unexpected frame {other:?}"),
        }
    }

    /// Begins to run Python source through the harness.
    pub(crate) fn begin_python(&mut self, source: &str) {
        let program = Program::Harness {
            argv: harness_argv(),
            request: HarnessRequest {
                source: source.to_owned(),
                file: None,
                args: Vec::new(),
                input_json: "null".to_owned(),
            },
        };
        let open = OpenCell {
            caps: CELL_CAPS,
            env: Vec::new(),
            secrets: Vec::new(),
            files: Vec::new(),
        };
        let call = Call::new(CallId(1), program, CALL_CAPS);
        for frame in [
            ToRunner::OpenCell(Box::new(open)),
            ToRunner::Call(Box::new(call)),
            ToRunner::CloseCell(CloseCell::default()),
        ] {
            self.connection.send_to_runner(&frame);
        }
    }

    /// Runs Python source through the harness. Returns the report and the standard output.
    pub(crate) fn python(&mut self, source: &str) -> (CallReport, String) {
        self.begin_python(source);
        self.finish()
    }

    /// Receives the rest of a run.
    pub(crate) fn finish(&mut self) -> (CallReport, String) {
        let (mut report, mut stdout, mut stderr) = (None, Vec::new(), Vec::new());
        loop {
            match self.connection.receive_from_runner() {
                Some(FromRunner::Output { stream, data, .. }) => match stream {
                    Stream::Stdout => stdout.extend(data),
                    Stream::Stderr => stderr.extend(data),
                },
                Some(FromRunner::CallEnded { report: got, .. }) => report = Some(*got),
                Some(FromRunner::CellEnded(cell)) => assert!(cell.clean),
                Some(FromRunner::CellClosed { clean, .. }) => {
                    assert!(clean);
                    let stderr = String::from_utf8_lossy(&stderr);
                    assert_eq!(stderr, "", "{report:?}");
                    break;
                }
                Some(FromRunner::Started { .. }) => {}
                other => panic!("unexpected frame {other:?}"),
            }
        }
        let stdout = String::from_utf8_lossy(&stdout).into_owned();
        (report.expect("the call ends before its cell"), stdout)
    }

    /// Receives the next piece of standard output, as text.
    pub(crate) fn output(&mut self) -> String {
        loop {
            match self.connection.receive_from_runner() {
                Some(FromRunner::Output { data, .. }) => {
                    return String::from_utf8_lossy(&data).into_owned();
                }
                Some(FromRunner::Started { .. }) => {}
                other => panic!("unexpected frame {other:?}"),
            }
        }
    }

    /// Closes the connection. Returns the name of the sandbox.
    pub(crate) fn close(self) -> String {
        self.sandbox
    }
}

/// Returns ample caps for a sandbox that shares the keeper's zygote with these imports.
pub(crate) fn with_zygote(imports: &[&str]) -> Open {
    let zygote = ZygoteProgram {
        argv: python("zygote.py"),
        env: Vec::new(),
        imports: imports.iter().map(|name| (*name).to_owned()).collect(),
        cpu_millis: CELL_CAPS.cpu_millis,
    };
    Open {
        zygote: Some(zygote),
        ..AMPLE
    }
}

/// Returns the frame that starts a zygote with these imports.
pub(crate) fn start_zygote(imports: &[&str]) -> ToRunner {
    ToRunner::StartZygote(Box::new(StartZygote {
        harness: harness_argv(),
        argv: python("zygote.py"),
        env: Vec::new(),
        imports: imports.iter().map(|name| (*name).to_owned()).collect(),
        caps: CELL_CAPS,
    }))
}

fn harness_argv() -> Vec<String> {
    python("harness.py")
}

fn python(file: &str) -> Vec<String> {
    let path = format!("{INSTALL_DIR}/{file}");
    ["/usr/bin/python3", "-s", "-B", &path]
        .map(str::to_owned)
        .to_vec()
}
