//! Fixture of the keeper's tests: a container with a keeper, and connections to it as a worker
//! makes them.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that panics fails the test that called it, which is its purpose"
)]

use std::fs::{self, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use sandhog_protocol::frames::{
    self, Call, CallCaps, CallId, CallReport, CellCaps, CloseCell, Features, FromRunner,
    HarnessRequest, OpenCell, Program, StartZygote, Stream, ToRunner,
};
use sandhog_protocol::install::{INSTALL_DIR, KEEP_ARGUMENT, RUNNER_CAPABILITIES, RUNNER_PATH};
use sandhog_protocol::keeper::{
    self, FromKeeper, Hello, MAX_REPLY, Open, SandboxEnd, SandboxState, ToKeeper,
};
use sandhog_testkit::environment;
use tempfile::TempDir;

/// Timeout of any wait in a test. It decides nothing: a healthy run never gets near it.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

/// Path of the socket in the container.
const SOCKET: &str = "/run/sandhog/keeper.sock";

/// Caps of a sandbox with room for every program that does not test a cap.
pub(crate) const AMPLE: Open = Open {
    memory_bytes: 256 << 20,
    cpu_millis: 2000,
    pids: 128,
    gpus: Vec::new(),
};

/// Caps of a cell in such a sandbox.
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

/// A container with a keeper.
pub(crate) struct KeeperFixture {
    container: String,
    folder: TempDir,
}

impl KeeperFixture {
    /// Starts a keeper for a test.
    pub(crate) fn new(test: &str) -> Self {
        let fixture = Self::start(test, &[], &[]);
        fixture.wait_until_listening();
        fixture
    }

    /// Starts a container with these options of `docker run` and these arguments of `keep`. Does
    /// not wait for the keeper.
    pub(crate) fn start(test: &str, options: &[&str], arguments: &[&str]) -> Self {
        let unique = uuid::Uuid::now_v7().simple().to_string();
        let fixture = Self {
            container: format!("sandhog-keeper-{test}-{unique}"),
            folder: TempDir::new().unwrap(),
        };
        let run = fixture.folder.path().join("run");
        fs::create_dir(&run).unwrap();
        fs::set_permissions(&run, Permissions::from_mode(0o755)).unwrap();
        let mut command = Command::new("docker");
        command
            .args(["run", "--detach", "--name", &fixture.container])
            .args([
                "--entrypoint",
                RUNNER_PATH,
                "--network",
                "none",
                "--read-only",
            ])
            .args([
                "--tmpfs",
                "/tmp:rw,nosuid,nodev,noexec,size=4m,nr_inodes=256,mode=0700",
            ])
            .args([
                "--cgroupns",
                "private",
                "--ipc",
                "private",
                "--pids-limit",
                "1024",
            ])
            .args([
                "--memory",
                "1g",
                "--memory-swap",
                "1g",
                "--oom-score-adj",
                "500",
            ])
            .args(["--security-opt", "no-new-privileges"])
            .args(["--security-opt", "apparmor=unconfined", "--cap-drop", "ALL"]);
        for capability in RUNNER_CAPABILITIES {
            command.args(["--cap-add", capability]);
        }
        command
            .args(["--volume", &format!("{}:/run/sandhog", run.display())])
            .args(options)
            .arg(environment::image_reference().replace("{name}", "python"))
            .args([KEEP_ARGUMENT, SOCKET])
            .args(arguments);
        succeed(command.output().expect("docker is installed"));
        fixture
    }

    /// Waits until the keeper accepts connections.
    pub(crate) fn wait_until_listening(&self) {
        wait_for(|| match UnixStream::connect(self.socket()) {
            Ok(_stream) => Ok(()),
            Err(error) => Err(format!("{error}; the keeper wrote: {}", self.log())),
        });
    }

    /// Returns the path of the socket on this machine.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("run/keeper.sock")
    }

    /// Connects and reads the keeper's first frame.
    pub(crate) fn connect(&self) -> (WorkerConnection, Hello) {
        let mut connection = self.connect_raw();
        match connection.receive() {
            Some(FromKeeper::Hello(hello)) => (connection, *hello),
            other => panic!("unexpected first frame {other:?}"),
        }
    }

    /// Connects and reads nothing.
    pub(crate) fn connect_raw(&self) -> WorkerConnection {
        let stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(WAIT_TIMEOUT)).unwrap();
        WorkerConnection {
            stream,
            input: Vec::new(),
        }
    }

    /// Makes a sandbox with ample caps.
    pub(crate) fn open(&self) -> SandboxConnection {
        self.open_with(&AMPLE)
    }

    /// Makes a sandbox with these caps and waits until its runner is ready.
    pub(crate) fn open_with(&self, caps: &Open) -> SandboxConnection {
        let (mut connection, _hello) = self.connect();
        connection.send(&ToKeeper::Open(caps.clone()));
        let sandbox = match connection.receive() {
            Some(FromKeeper::Opened { sandbox }) => sandbox,
            other => panic!("unexpected frame {other:?}; log: {}", self.log()),
        };
        match connection.receive_from_runner() {
            Some(FromRunner::Ready { version, features }) => {
                assert_eq!(version, frames::VERSION);
                SandboxConnection {
                    sandbox,
                    features,
                    connection,
                }
            }
            other => panic!("unexpected frame {other:?}; {:?}", self.ask(&sandbox)),
        }
    }

    /// Returns the state of a sandbox.
    pub(crate) fn ask(&self, name: &str) -> SandboxState {
        let (mut connection, _hello) = self.connect();
        connection.send(&ToKeeper::Ask {
            sandbox: name.to_owned(),
        });
        match connection.receive() {
            Some(FromKeeper::State { sandbox, state }) => {
                assert_eq!(sandbox, name);
                state
            }
            other => panic!("unexpected frame {other:?}"),
        }
    }

    /// Waits until a sandbox has ended, and returns its end.
    pub(crate) fn end_of(&self, name: &str) -> SandboxEnd {
        let mut end = None;
        wait_for(|| match self.ask(name) {
            SandboxState::Ended(found) => {
                end = Some(found);
                Ok(())
            }
            other => Err(format!("the sandbox is {other:?}")),
        });
        end.unwrap()
    }

    /// Runs a shell command in the container, as root. Returns its standard output.
    pub(crate) fn shell(&self, command: &str) -> String {
        succeed(self.exec("0", &["/bin/bash", "-c", command]))
    }

    /// Runs a program in the container as this user.
    pub(crate) fn exec(&self, user: &str, argv: &[&str]) -> Output {
        Command::new("docker")
            .args(["exec", "--user", user, &self.container])
            .args(argv)
            .output()
            .unwrap()
    }

    /// Runs `probe` in the container as this user.
    pub(crate) fn probe(&self, user: &str) -> Output {
        self.exec(user, &[RUNNER_PATH, "probe", SOCKET])
    }

    /// Sends a signal to the keeper.
    pub(crate) fn signal(&self, name: &str) {
        let command = ["kill", "--signal", name, &self.container];
        succeed(Command::new("docker").args(command).output().unwrap());
    }

    /// Waits until the container has ended. Returns the exit code of the keeper.
    pub(crate) fn exit_code(&self) -> String {
        let command = ["wait", &self.container];
        let code = succeed(Command::new("docker").args(command).output().unwrap());
        code.trim().to_owned()
    }

    /// Returns the lines that the keeper wrote.
    pub(crate) fn log(&self) -> String {
        let command = ["logs", &self.container];
        let output = Command::new("docker").args(command).output().unwrap();
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Returns the process ids, as the keeper sees them, of all runners.
    pub(crate) fn runners(&self) -> Vec<String> {
        let command = r"grep -lP '^NSpid:\s\d+\s1$' /proc/[0-9]*/status || true";
        let found = self.shell(command);
        let pids = found.lines().filter_map(|path| path.split('/').nth(2));
        pids.map(str::to_owned).collect()
    }
}

impl Drop for KeeperFixture {
    fn drop(&mut self) {
        let command = ["rm", "--force", "--volumes", &self.container];
        // A failure leaves a container behind and is no fault of the code under test.
        Command::new("docker").args(command).output().ok();
    }
}

/// A connection of a worker to a keeper.
pub(crate) struct WorkerConnection {
    stream: UnixStream,
    input: Vec<u8>,
}

impl WorkerConnection {
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

/// Returns the standard output of a program that must have succeeded.
fn succeed(output: Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {stderr}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// Repeats a check until it succeeds.
pub(crate) fn wait_for(mut check: impl FnMut() -> Result<(), String>) {
    let until = Instant::now() + WAIT_TIMEOUT;
    while let Err(why) = check() {
        assert!(Instant::now() < until, "{why}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
