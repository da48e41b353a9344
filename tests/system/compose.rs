//! `docker-compose.yml` as it ships: up, jobs, three workers of which one is killed, down, and
//! nothing left.
//!
//! With `SANDHOG_TEST_COMPOSE='docker compose'` the test uses version 2 of compose.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use sandhog_core::outcome::Outcome;
use sandhog_testkit::containers::{Engine, NAMESPACE_LABEL};
use sandhog_testkit::environment;
use sandhog_testkit::namespace::decode;
use sandhog_testkit::private_redis::free_port;
use tempfile::TempDir;

/// Timeout for any state to be reached.
const WAIT_TIMEOUT: Duration = Duration::from_secs(120);

/// Label that both versions of compose put on their containers, networks and volumes.
const PROJECT_LABEL: &str = "com.docker.compose.project";

/// A copy of the files that compose needs from a checkout, with the programs of this build, under a
/// unique project name.
struct Stack {
    folder: TempDir,
    project: String,
    redis: String,
}

impl Stack {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let checkout = environment::checkout();
        for name in ["docker-compose.yml", ".dockerignore", "deploy", "images"] {
            copy(&checkout.join(name), &folder.path().join(name));
        }
        let programs = folder.path().join("target/release");
        fs::create_dir_all(&programs).expect("a folder can be made");
        let sandhog = environment::sandhog();
        for name in ["sandhog", "sandhog-runner"] {
            copy(&sandhog.with_file_name(name), &programs.join(name));
        }
        let project = format!("sandhog-test-{}", uuid::Uuid::now_v7().simple());
        let port = free_port();
        let variables = format!(
            "COMPOSE_PROJECT_NAME={project}\n\
             SANDHOG_VERSION=test\n\
             SANDHOG_NAMESPACE={project}\n\
             SANDHOG_REDIS_PASSWORD=onlyfortests\n\
             SANDHOG_REDIS_PORT={port}\n"
        );
        fs::write(folder.path().join(".env"), variables).expect("a file can be written");
        // A short lease, so that the killed worker's jobs are taken over soon. The override file is
        // the documented way to change any setting.
        let changes =
            "services:\n  worker:\n    environment:\n      SANDHOG_WORKER_LEASE_MS: 3000\n";
        fs::write(folder.path().join("docker-compose.override.yml"), changes)
            .expect("a file can be written");
        Self {
            folder,
            redis: format!("redis://:onlyfortests@127.0.0.1:{port}"),
            project,
        }
    }

    /// Adds a line to `.env`.
    fn set(&self, line: &str) {
        let file = self.folder.path().join(".env");
        let before = fs::read_to_string(&file).expect("a file can be read");
        fs::write(file, format!("{before}{line}\n")).expect("a file can be written");
    }

    fn try_compose(&self, words: &[&str]) -> Output {
        let compose = environment::compose();
        let (program, first) = compose.split_first().expect("a command is not empty");
        Command::new(program)
            .args(first)
            .args(words)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|error| panic!("{program} cannot be started: {error}"))
    }

    fn compose(&self, words: &[&str]) -> String {
        let run = self.try_compose(words);
        let said = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success(), "{words:?}: {} {said}", run.status);
        String::from_utf8(run.stdout).expect("compose prints text")
    }

    /// Runs `sandhog` on this machine with the stack's Redis at its published port.
    fn sandhog(&self, words: &[&str]) -> Output {
        environment::sandhog_command()
            .args(words)
            .env("SANDHOG_REDIS_URL", &self.redis)
            .env("SANDHOG_NAMESPACE", &self.project)
            .stdin(Stdio::null())
            .output()
            .expect("sandhog starts")
    }

    /// Waits until this many workers are announced.
    fn wait_for_workers(&self, count: usize) {
        let deadline = Instant::now() + WAIT_TIMEOUT;
        loop {
            let status = self.sandhog(&["status", "--json"]);
            let workers = serde_json::from_slice::<serde_json::Value>(&status.stdout)
                .ok()
                .and_then(|status| Some(status.get("workers")?.as_array()?.len()));
            if workers == Some(count) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "not {count} workers but {workers:?}: {}\n{}",
                String::from_utf8_lossy(&status.stderr),
                String::from_utf8_lossy(&self.try_compose(&["logs", "--tail", "20"]).stdout),
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn containers(&self, engine: &Engine) -> Vec<String> {
        engine.containers_with_label(PROJECT_LABEL, &self.project)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        let down = self.try_compose(&["down", "--volumes", "--timeout", "5"]);
        if !down.status.success() && !std::thread::panicking() {
            panic!("down: {}", String::from_utf8_lossy(&down.stderr));
        }
        // This image contains the programs of this build; the other two images are kept for the
        // next run.
        Engine::connect().remove_image("sandhog/worker:test");
        Engine::connect().remove_all(NAMESPACE_LABEL, &self.project);
    }
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(
        copied.is_ok_and(|status| status.success()),
        "{} cannot be copied",
        from.display()
    );
}

#[test]
fn comes_up_scales_loses_a_worker_and_goes_down() {
    let engine = Engine::connect();
    let stack = Stack::new();
    stack.compose(&["up", "--detach", "--build"]);
    stack.wait_for_workers(1);

    let answer = stack.compose(&["run", "--rm", "cli", "run", "-c", "print(6*7)"]);
    assert_eq!(answer, "42\n");
    // The command can read the files of the folder, and has no engine.
    let script = stack.folder.path().join("script.py");
    fs::write(script, "print(6*9)").expect("a file can be written");
    let answer = stack.compose(&["run", "--rm", "cli", "run", "script.py"]);
    assert_eq!(answer, "54\n");
    let found = stack.compose(&["run", "--rm", "cli", "doctor"]);
    assert!(found.contains("engine: none here"), "{found}");

    // Requests to the engine that a worker must not make. One command sends all of them, because
    // entering a container takes compose longer than the requests do.
    let refused = [
        "POST /v1.41/build",
        "POST /v1.41/containers/any/exec",
        "GET /v1.41/containers/any/archive?path=/",
        "POST /v1.41/volumes/create",
        "GET /v1.41/images/../volumes/json",
        "GET /v1.41/%63ontainers/any/logs",
    ];
    let script = "for request; do exec 3<>/dev/tcp/engine/2375; printf '%s HTTP/1.0\\r\\n\\r\\n' \
                  \"$request\" >&3; \
                  read -r _ status _ <&3; echo \"$request: $status\"; done";
    let words = ["exec", "-T", "worker", "bash", "-c", script, "bash"];
    let answers = stack.compose(&[&words[..], &refused[..]].concat());
    let expected: String = refused.map(|request| format!("{request}: 403\n")).concat();
    assert_eq!(answers, expected);

    stack.set("SANDHOG_WORKERS=3");
    stack.compose(&["up", "--detach"]);
    stack.wait_for_workers(3);
    let found = stack.compose(&["run", "--rm", "cli", "doctor"]);
    assert!(!found.contains("shared machine"), "they divide it: {found}");

    let jobs = 24;
    let ids: Vec<String> = (0..jobs)
        .map(|n| {
            let code = format!("import time; time.sleep(0.5); print({n})");
            let submitted = stack.sandhog(&["submit", "-c", &code]);
            assert!(submitted.status.success(), "{submitted:?}");
            String::from_utf8(submitted.stdout).expect("an id is text")
        })
        .map(|id| id.trim().to_owned())
        .collect();
    let listed = stack.compose(&["ps", "-q", "worker"]);
    let victim = listed.lines().next().expect("there are workers");
    engine.kill(victim.trim());
    for (n, id) in ids.iter().enumerate() {
        let waited = stack.sandhog(&["wait", "--json", "--timeout", "120s", id]);
        assert!(waited.status.success(), "job {n}: {waited:?}");
        let result = decode(&waited.stdout);
        assert_eq!(result.outcome, Outcome::Succeeded, "{result:?}");
        assert_eq!(result.stdout.lossy(), format!("{n}\n"));
    }
    stack.wait_for_workers(2);

    // The surviving workers removed the containers of the killed worker.
    stack.compose(&["down", "--volumes"]);
    assert_eq!(stack.containers(&engine), Vec::<String>::new());
    assert_eq!(
        engine.containers_with_label(NAMESPACE_LABEL, &stack.project),
        Vec::<String>::new()
    );
}

#[test]
fn a_password_is_asked_for() {
    let stack = Stack::new();
    let file = stack.folder.path().join(".env");
    let variables = fs::read_to_string(&file).expect("a file can be read");
    fs::write(
        &file,
        variables.replace("SANDHOG_REDIS_PASSWORD=onlyfortests\n", ""),
    )
    .expect("a file can be written");
    let config = stack.try_compose(&["config"]);
    let said = String::from_utf8_lossy(&config.stderr);
    assert!(
        !config.status.success() && said.contains("set it in .env"),
        "{said}"
    );
    fs::write(&file, variables).expect("a file can be written");
}
