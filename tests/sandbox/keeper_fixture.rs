//! Fixture of the keeper's tests: a container with a keeper.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that panics fails the test that called it, which is its purpose"
)]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use sandhog_protocol::frames::{self, FromRunner};
use sandhog_protocol::install::{KEEP_ARGUMENT, RUNNER_CAPABILITIES, RUNNER_PATH};
use sandhog_protocol::keeper::{FromKeeper, Hello, Open, SandboxEnd, SandboxState, ToKeeper};
use sandhog_testkit::environment;
use tempfile::TempDir;

use crate::keeper_connection::{SandboxConnection, WorkerConnection};

/// Timeout of any wait in a test. It decides nothing: a healthy run never gets near it.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

/// Path of the socket in the container.
const SOCKET: &str = "/run/sandhog/keeper.sock";

/// Scratch directory of the container.
const SCRATCH: &str = "/tmp:rw,nosuid,nodev,noexec,size=4m,nr_inodes=256,mode=0700";

/// Caps of a sandbox with room for every program that does not test a cap.
pub(crate) const AMPLE: Open = Open {
    memory_bytes: 256 << 20,
    cpu_millis: 2000,
    pids: 128,
    gpus: Vec::new(),
    zygote: None,
};

/// Owner of the cgroups of a container whose root is that of a user namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delegation {
    /// The root of the user namespace.
    Delegated,
    /// The root of the machine.
    NotDelegated,
}

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
        let fixture = Self::prepare(test);
        let mut command = fixture.docker_run();
        command
            .args(["--entrypoint", RUNNER_PATH])
            .args(["--ipc", "private", "--oom-score-adj", "500"])
            .args(["--security-opt", "no-new-privileges"])
            .args(["--security-opt", "apparmor=unconfined", "--cap-drop", "ALL"]);
        for capability in RUNNER_CAPABILITIES {
            command.args(["--cap-add", capability]);
        }
        command
            .args(options)
            .arg(environment::image_reference().replace("{name}", "python"))
            .args([KEEP_ARGUMENT, SOCKET])
            .args(arguments);
        succeed(command.output().expect("docker is installed"));
        fixture
    }

    /// Starts a keeper as root of a user namespace that has this number of ids and the seven
    /// capabilities. `options` are those of `docker run`. Does not wait for the keeper.
    pub(crate) fn start_in_user_namespace(
        test: &str,
        ids: u32,
        cgroups: Delegation,
        options: &[&str],
    ) -> Self {
        let fixture = Self::prepare(test);
        let run = fixture.folder.path().join("run");
        // Its root is another user outside.
        fs::set_permissions(run, Permissions::from_mode(0o777)).unwrap();
        let mut command = fixture.docker_run();
        command
            .args(["--entrypoint", "/usr/bin/python3"])
            .args(["--cap-add", "SYS_ADMIN", "--cap-add", "NET_ADMIN"])
            // The kernel allows a /proc in a user namespace only if no part of another is hidden.
            .args(["--security-opt", "systempaths=unconfined"])
            .args(["--security-opt", "seccomp=unconfined"])
            .args(["--security-opt", "apparmor=unconfined"])
            .args(options)
            .arg(environment::image_reference().replace("{name}", "python"))
            .args(["-c", include_str!("user_namespace.py")])
            .arg(ids.to_string())
            .arg(match cgroups {
                Delegation::Delegated => "delegated",
                Delegation::NotDelegated => "not-delegated",
            })
            .args([RUNNER_PATH, KEEP_ARGUMENT, SOCKET]);
        succeed(command.output().expect("docker is installed"));
        fixture
    }

    /// Makes the directory of the socket.
    fn prepare(test: &str) -> Self {
        let unique = uuid::Uuid::now_v7().simple().to_string();
        let folder = TempDir::new().unwrap();
        let run = folder.path().join("run");
        fs::create_dir(&run).unwrap();
        fs::set_permissions(&run, Permissions::from_mode(0o755)).unwrap();
        Self {
            container: format!("sandhog-keeper-{test}-{unique}"),
            folder,
        }
    }

    /// Returns a `docker run` with the options that every keeper's container has.
    fn docker_run(&self) -> Command {
        let run = self.folder.path().join("run");
        let mut command = Command::new("docker");
        command
            .args(["run", "--detach", "--name", &self.container])
            .args(["--network", "none", "--read-only", "--cgroupns", "private"])
            .args(["--tmpfs", SCRATCH, "--pids-limit", "1024"])
            .args(["--memory", "1g", "--memory-swap", "1g"])
            .args(["--volume", &format!("{}:/run/sandhog", run.display())]);
        command
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
        WorkerConnection::new(&self.socket(), WAIT_TIMEOUT)
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
