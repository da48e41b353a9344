//! With no previous set-up: `sandhog run` for one job, `sandhog up` for a longer time, and a check
//! that both clean up.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sandhog_core::id::Namespace;
use sandhog_testkit::containers::{Engine, NAMESPACE_LABEL, WORKER_LABEL};
use sandhog_testkit::environment;
use sandhog_testkit::eventually::eventually;
use sandhog_testkit::namespace::WAIT_TIMEOUT;
use sandhog_testkit::worker::WorkerSpec;

/// A user without settings, with an unused namespace.
struct Newcomer {
    home: tempfile::TempDir,
    namespace: Namespace,
}

impl Newcomer {
    fn new() -> Self {
        let unique = uuid::Uuid::now_v7().simple();
        Self {
            home: tempfile::tempdir().expect("a temporary folder can be made"),
            namespace: format!("test-up-{unique}")
                .parse()
                .expect("a short plain name is valid"),
        }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = environment::sandhog_command();
        command
            .args(words)
            .envs(environment::home_environment(self.home.path()))
            .env("SANDHOG_NAMESPACE", self.namespace.as_str())
            // A run without a worker uses a new namespace, so the test finds its containers by the
            // worker's id.
            .env("SANDHOG_WORKER_ID", self.namespace.as_str())
            .current_dir(self.home.path())
            .stdin(Stdio::null());
        command
    }

    fn sandhog(&self, words: &[&str]) -> Output {
        self.command(words).output().expect("sandhog starts")
    }

    /// Runs a command that must succeed and returns its standard output.
    fn succeeds(&self, words: &[&str]) -> String {
        let run = self.sandhog(words);
        let said = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success(), "{words:?}: {} {said}", run.status);
        String::from_utf8(run.stdout).expect("sandhog prints text")
    }

    /// Returns the containers of this user's namespace and worker.
    fn containers(&self) -> Vec<String> {
        let engine = Engine::connect();
        let mut found = engine.containers_with_label(NAMESPACE_LABEL, self.namespace.as_str());
        found.extend(engine.containers_with_label(WORKER_LABEL, self.namespace.as_str()));
        found
    }

    /// Returns the command lines of processes that contain this user's home folder.
    fn processes(&self) -> Vec<String> {
        let home = self.home.path().to_string_lossy().into_owned();
        fs::read_dir("/proc")
            .expect("/proc can be read")
            .filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("cmdline")).ok())
            .filter(|line| line.contains(&home))
            .collect()
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            Engine::connect().remove_all(NAMESPACE_LABEL, self.namespace.as_str());
        }
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder)
        .expect("the folder can be read")
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .flat_map(|path| match path.is_dir() {
            true => files_below(&path),
            false => vec![path],
        })
        .collect()
}

#[test]
fn one_run_with_nothing_running_leaves_nothing_behind() {
    let newcomer = Newcomer::new();
    assert_eq!(
        newcomer.succeeds(&["run", "--code", "print(6 * 7)"]),
        "42\n"
    );
    let failed = newcomer.sandhog(&["run", "--code", "import sys\nsys.exit(7)"]);
    assert_eq!(failed.status.code(), Some(7), "the program's own exit code");

    let nothing: [String; 0] = [];
    assert_eq!(newcomer.containers(), nothing);
    assert_eq!(newcomer.processes(), nothing);
    assert_eq!(files_below(newcomer.home.path()), [] as [PathBuf; 0]);
}

#[test]
fn one_run_that_is_interrupted_leaves_nothing_behind() {
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let newcomer = Newcomer::new();
        let code_text = "import time\nprint('running', flush=True)\ntime.sleep(600)";
        let mut run = newcomer
            .command(&["run", "--code", code_text])
            .stdout(Stdio::piped())
            .spawn()
            .expect("sandhog starts");
        let mut said = [0; 8];
        let mut stdout = run.stdout.take().expect("its output is piped");
        stdout.read_exact(&mut said).expect("the program speaks");
        assert_eq!(&said, b"running\n");

        let pid = i32::try_from(run.id()).expect("a process id fits");
        kill(Pid::from_raw(pid), signal).expect("it can be signalled");
        let status = run.wait().expect("our own child can be waited for");
        assert_eq!(status.code(), Some(code), "{signal}");
        let nothing: [String; 0] = [];
        assert_eq!(newcomer.containers(), nothing, "{signal}");
        assert_eq!(newcomer.processes(), nothing, "{signal}");
        assert_eq!(files_below(newcomer.home.path()), [] as [PathBuf; 0]);
    }
}

#[test]
fn up_serves_until_it_is_stopped_and_remembers_its_results() {
    let newcomer = Newcomer::new();
    let start = || WorkerSpec::up(&newcomer.namespace, newcomer.home.path()).start();
    let mut up = start();
    assert_eq!(
        newcomer.succeeds(&["run", "--code", "print(6 * 7)"]),
        "42\n"
    );
    let id = newcomer.succeeds(&["submit", "--code", "def main():\n    return 'kept'"]);
    let id = id.trim_end();
    let result = newcomer.succeeds(&["wait", id, "--json"]);

    up.signal(Signal::SIGINT);
    let status = up.wait();
    assert!(status.success(), "Ctrl-C is the way to stop it: {status}");
    let nothing: [String; 0] = [];
    assert_eq!(newcomer.containers(), nothing);
    assert_eq!(newcomer.processes(), nothing);

    let mut again = start();
    assert_eq!(newcomer.succeeds(&["wait", id, "--json"]), result);
    assert!(again.drain().success());
    assert_eq!(newcomer.processes(), nothing);
}

/// A user that is not root and may use the engine's socket by its group, as members of the group
/// `docker` may.
const OTHER_USER: u32 = 54_321;

/// Returns a command that runs a program as a user who is not root: as [`OTHER_USER`] if this
/// test's user is root.
fn as_a_user_of_docker(newcomer: &Newcomer, words: &[&str]) -> Command {
    let plain = newcomer.command(words);
    if !nix::unistd::Uid::current().is_root() {
        return plain;
    }
    let socket = fs::metadata("/var/run/docker.sock").expect("the engine runs");
    std::os::unix::fs::chown(newcomer.home.path(), Some(OTHER_USER), Some(OTHER_USER))
        .expect("root can change the owner");
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", &OTHER_USER.to_string()])
        .args(["--regid", &OTHER_USER.to_string()])
        .args(["--groups", &socket.gid().to_string()])
        .arg(plain.get_program())
        .args(plain.get_args())
        .current_dir(newcomer.home.path())
        .env_remove("XDG_RUNTIME_DIR")
        .stdin(Stdio::null());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

#[test]
fn up_uses_keepers_for_a_user_of_the_group_docker() {
    let newcomer = Newcomer::new();
    let mut up = as_a_user_of_docker(&newcomer, &["up"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("sandhog starts");
    let mut lines = BufReader::new(up.stdout.take().expect("it is piped")).lines();
    let banner = lines
        .by_ref()
        .map(|line| line.expect("sandhog prints text"))
        .find(|line| line.starts_with("  sandbox "));
    assert_eq!(
        banner.as_deref(),
        Some("  sandbox  made by a keeper for each image")
    );
    for n in 0..3 {
        let words = ["run", "--tenant", &format!("t{n}"), "-c", "print(6 * 7)"];
        let run = as_a_user_of_docker(&newcomer, &words).output();
        let run = run.expect("sandhog starts");
        assert_eq!(String::from_utf8_lossy(&run.stdout), "42\n", "{run:?}");
    }
    let found = newcomer.containers();
    let unique: HashSet<&String> = found.iter().collect();
    assert_eq!(unique.len(), 1, "one keeper for all tenants: {found:?}");

    let pid = i32::try_from(up.id()).expect("a process id fits");
    kill(Pid::from_raw(pid), Signal::SIGINT).expect("it can be signalled");
    let status = up.wait().expect("our own child can be waited for");
    assert!(status.success(), "{status}");
    let nothing: [String; 0] = [];
    assert_eq!(newcomer.containers(), nothing);
    assert_eq!(newcomer.processes(), nothing);
}

#[test]
fn up_says_that_it_uses_containers_where_that_is_set() {
    let newcomer = Newcomer::new();
    let up = WorkerSpec::up(&newcomer.namespace, newcomer.home.path())
        .set("SANDBOX_UNIT", "container")
        .start();
    eventually(WAIT_TIMEOUT, || {
        let log = up.log();
        let is_told = log.contains("  sandbox  a container each\n");
        is_told.then_some(()).ok_or(log)
    });
}

#[test]
fn a_killed_up_leaves_no_redis_and_the_next_one_tidies_up() {
    let newcomer = Newcomer::new();
    let start = || WorkerSpec::up(&newcomer.namespace, newcomer.home.path()).start();
    let mut up = start();
    newcomer.succeeds(&["run", "--code", "1"]);
    up.kill9();
    let mut again = start();
    newcomer.succeeds(&["run", "--code", "1"]);
    assert!(again.drain().success());
    let nothing: [String; 0] = [];
    assert_eq!(newcomer.processes(), nothing);
    assert_eq!(newcomer.containers(), nothing, "not even of the killed one");
}
