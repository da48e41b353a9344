//! `docker-compose.yml` as it ships: up, jobs, a killed keeper, workers of which one is killed,
//! down, and nothing left. Also with the engine's socket, as `docker-compose.engine.yml` sets it.
//!
//! With `SANDHOG_TEST_COMPOSE='docker compose'` the test uses version 2 of compose.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use sandhog_core::outcome::{JobResult, Outcome};
use sandhog_protocol::install::RUNNER_CAPABILITIES;
use sandhog_testkit::containers::{Engine, NAMESPACE_LABEL};
use sandhog_testkit::environment;
use sandhog_testkit::eventually::eventually;
use sandhog_testkit::namespace::decode;
use sandhog_testkit::private_redis::free_port;
use serde_json::json;
use tempfile::TempDir;

/// Timeout for any state to be reached.
const WAIT_TIMEOUT: Duration = Duration::from_secs(120);

/// Label that both versions of compose put on their containers, networks and volumes.
const PROJECT_LABEL: &str = "com.docker.compose.project";

/// Image of the worker, without a tag.
const WORKER_IMAGE: &str = "sandhog/worker";

/// File with settings of the test, which compose merges into the shipped files.
const OVERRIDE_FILE: &str = "docker-compose.override.yml";

/// A copy of the files that compose needs from a checkout, with the programs of this build, under a
/// unique project name.
struct Stack {
    folder: TempDir,
    project: String,
    redis: String,
}

impl Stack {
    /// A stack of `docker-compose.yml` and these files.
    fn new(further: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let checkout = environment::checkout();
        let shipped = ["docker-compose.yml", ".dockerignore", "deploy", "images"];
        for name in shipped.iter().chain(further) {
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
        let files = [&["docker-compose.yml"], further, &[OVERRIDE_FILE]].concat();
        let variables = format!(
            "COMPOSE_PROJECT_NAME={project}\n\
             COMPOSE_FILE={}\n\
             SANDHOG_VERSION=test\n\
             SANDHOG_NAMESPACE={project}\n\
             SANDHOG_REDIS_PASSWORD=onlyfortests\n\
             SANDHOG_REDIS_PORT={port}\n",
            files.join(":"),
        );
        fs::write(folder.path().join(".env"), variables).expect("a file can be written");
        // A short lease, so that the killed worker's jobs are taken over soon. The override file is
        // the documented way to change any setting. The image of the worker has the programs of
        // this build; the tests that run at the same time each remove their own.
        let image = format!("{WORKER_IMAGE}:{project}");
        let changes = format!(
            "services:\n  worker:\n    image: {image}\n    environment:\n      \
             SANDHOG_WORKER_LEASE_MS: 3000\n  cli:\n    image: {image}\n"
        );
        fs::write(folder.path().join(OVERRIDE_FILE), changes).expect("a file can be written");
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

    /// Submits a job and returns its id.
    fn submit(&self, words: &[&str]) -> String {
        let submitted = self.sandhog(&[&["submit"], words].concat());
        assert!(submitted.status.success(), "{submitted:?}");
        let id = String::from_utf8(submitted.stdout).expect("an id is text");
        id.trim().to_owned()
    }

    /// Waits until the job has printed something.
    fn wait_for_output(&self, id: &str) {
        eventually(WAIT_TIMEOUT, || {
            let logs = self.sandhog(&["logs", id]);
            let printed = !logs.stdout.is_empty();
            printed.then_some(()).ok_or_else(|| format!("{logs:?}"))
        });
    }

    /// Returns the number of the present attempt of a job, and the job's state.
    fn attempt(&self, id: &str) -> (u64, String) {
        let status = self.sandhog(&["status", "--json", id]);
        let job: serde_json::Value =
            serde_json::from_slice(&status.stdout).expect("the status is JSON");
        let state = job["state"].as_str().unwrap_or_default().to_owned();
        (job["attempts"].as_u64().unwrap_or_default(), state)
    }

    /// Waits for the result of a job.
    fn result(&self, id: &str) -> JobResult {
        let waited = self.sandhog(&["wait", "--json", "--timeout", "120s", id]);
        assert!(waited.status.success(), "job {id}: {waited:?}");
        decode(&waited.stdout)
    }

    /// Returns the id of the first container of a service.
    fn container(&self, service: &str) -> String {
        let listed = self.compose(&["ps", "-q", service]);
        let first = listed.lines().next().expect("the service has a container");
        first.trim().to_owned()
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
        // The other images are kept for the next run.
        Engine::connect().remove_image(&format!("{WORKER_IMAGE}:{}", self.project));
        Engine::connect().remove_all(NAMESPACE_LABEL, &self.project);
    }
}

/// Kills the main process of a container from outside. Unlike a request to the engine to kill it,
/// this makes the engine restart the container.
fn kill_main_process(engine: &Engine, container: &str) {
    let found: serde_json::Value =
        serde_json::from_str(&engine.inspect(container)).expect("the engine's answer is JSON");
    let pid = found["State"]["Pid"].to_string();
    let image = environment::image_reference().replace("{name}", "python");
    let killed = Command::new("docker")
        .args(["run", "--rm", "--pid", "host", "--entrypoint", "bash"])
        .args([&image, "-c", &format!("kill -9 {pid}")])
        .output()
        .expect("docker is installed");
    assert!(killed.status.success(), "{pid}: {killed:?}");
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
    let stack = Stack::new(&[]);
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

    stack.set("SANDHOG_WORKERS=3");
    stack.compose(&["up", "--detach"]);
    stack.wait_for_workers(3);

    let ids: Vec<String> = (0..24)
        .map(|n| stack.submit(&["-c", &format!("import time; time.sleep(0.5); print({n})")]))
        .collect();
    engine.kill(&stack.container("worker"));
    for (n, id) in ids.iter().enumerate() {
        let result = stack.result(id);
        assert_eq!(result.outcome, Outcome::Succeeded, "{result:?}");
        assert_eq!(result.stdout.lossy(), format!("{n}\n"));
    }
    stack.wait_for_workers(2);

    stack.compose(&["down", "--volumes"]);
    assert_eq!(stack.containers(&engine), Vec::<String>::new());
}

#[test]
fn no_service_has_the_engine_and_a_killed_keeper_costs_only_its_own_jobs() {
    let engine = Engine::connect();
    let stack = Stack::new(&[]);
    stack.compose(&["up", "--detach", "--build"]);
    stack.wait_for_workers(1);

    for container in stack.containers(&engine) {
        let found = engine.inspect(&container);
        assert!(!found.contains("docker.sock"), "{found}");
        assert!(found.contains(r#""Privileged":false"#), "{found}");
    }
    let found = engine.inspect(&stack.container("keeper-python"));
    let found: serde_json::Value = serde_json::from_str(&found).expect("the answer is JSON");
    let host = &found["HostConfig"];
    let set_of = |field: &str| -> BTreeSet<String> {
        let values = host[field].as_array().into_iter().flatten();
        values
            .map(|value| value.as_str().expect("it is a text").to_owned())
            .collect()
    };
    assert_eq!(
        set_of("CapAdd"),
        RUNNER_CAPABILITIES.map(str::to_owned).into()
    );
    let security = ["no-new-privileges:true", "apparmor=unconfined"];
    assert_eq!(set_of("SecurityOpt"), security.map(str::to_owned).into());
    for (field, want) in [
        ("CapDrop", json!(["ALL"])),
        ("NetworkMode", json!("none")),
        ("ReadonlyRootfs", json!(true)),
        ("Memory", json!(4_u64 << 30)),
        ("MemorySwap", json!(4_u64 << 30)),
        ("PidsLimit", json!(32_768)),
        ("OomScoreAdj", json!(500)),
        ("ShmSize", json!(1 << 20)),
        ("IpcMode", json!("private")),
    ] {
        assert_eq!(host[field], want, "{field}");
    }
    // One command sees everything, because entering a container takes compose longer than it.
    let script = "grep -E '^(Uid|Cap|NoNewPrivs)' /proc/1/status | tr '\t' ' '; \
                  find / -name 'docker*.sock' -not -path '/proc/*' 2>/dev/null; \
                  touch /new 2>&1; touch /run/sandhog/new 2>&1; true";
    let found = stack.compose(&["exec", "-T", "worker", "bash", "-c", script]);
    let none = "0000000000000000";
    let want = format!(
        "Uid: 65534 65534 65534 65534\nCapInh: {none}\nCapPrm: {none}\nCapEff: {none}\n\
         CapBnd: {none}\nCapAmb: {none}\nNoNewPrivs: 1\n\
         touch: cannot touch '/new': Read-only file system\n\
         touch: cannot touch '/run/sandhog/new': Read-only file system\n"
    );
    assert_eq!(found, want);

    // Both jobs run until they are cancelled, so that no pause decides the test.
    let code = "import time\nprint('started', flush=True)\ntime.sleep(600)";
    let common = ["--max-attempts", "1", "--timeout", "10m"];
    let hit = stack.submit(&[&common[..], &["-c", code]].concat());
    let code = "console.log('started'); setTimeout(() => {}, 600000)";
    let spared = stack.submit(&[&common[..], &["--image", "node", "-c", code]].concat());
    stack.wait_for_output(&hit);
    stack.wait_for_output(&spared);
    kill_main_process(&engine, &stack.container("keeper-python"));
    // The first attempt was lost and costs the job none of its attempts. The second one needs the
    // keeper that the engine has started again.
    eventually(WAIT_TIMEOUT, || match stack.attempt(&hit) {
        (2, state) if state == "running" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(stack.attempt(&spared), (1, "running".to_owned()));
    for id in [&hit, &spared] {
        let cancelled = stack.sandhog(&["cancel", id]);
        assert!(cancelled.status.success(), "{cancelled:?}");
    }
    let next = stack.result(&stack.submit(&["-c", "print('on')"]));
    assert_eq!(next.stdout.lossy(), "on\n", "{next:?}");
}

#[test]
fn with_the_engines_socket_a_filter_refuses_what_no_worker_needs() {
    let engine = Engine::connect();
    let stack = Stack::new(&["docker-compose.engine.yml"]);
    stack.compose(&["up", "--detach", "--build"]);
    stack.wait_for_workers(1);
    let services = stack.compose(&["ps", "--services"]);
    let running: Vec<String> = stack.containers(&engine);
    assert_eq!(running.len(), 3, "redis, engine and worker of: {services}");

    let answer = stack.compose(&["run", "--rm", "cli", "run", "-c", "print(6*7)"]);
    assert_eq!(answer, "42\n");
    assert_ne!(
        engine.containers_with_label(NAMESPACE_LABEL, &stack.project),
        Vec::<String>::new(),
        "the sandbox is a container"
    );

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

    stack.compose(&["down", "--volumes"]);
    assert_eq!(stack.containers(&engine), Vec::<String>::new());
    assert_eq!(
        engine.containers_with_label(NAMESPACE_LABEL, &stack.project),
        Vec::<String>::new()
    );
}

/// Names in the commands of the guide, which this test makes its own.
const GUIDE_NAMES: [&str; 3] = ["sandhog-sockets", "keeper-python", "sandhog-worker"];

/// The containers and the volume that the commands of the guide make. On drop they are removed.
struct Guide {
    project: String,
}

impl Guide {
    /// Runs the only block of shell commands of the guide.
    fn run(stack: &Stack) -> Self {
        let page = environment::checkout().join("docs/guides/operations.md");
        let page = fs::read_to_string(page).expect("the guide exists");
        let (_, block) = page.split_once("```sh\n").expect("the guide has a block");
        let (block, _) = block.split_once("```").expect("the block ends");
        let guide = Self {
            project: stack.project.clone(),
        };
        let mut script = block.replace(WORKER_IMAGE, &format!("{WORKER_IMAGE}:{}", stack.project));
        let port = free_port().to_string();
        script = script.replace("9464", &port);
        for name in GUIDE_NAMES {
            assert!(script.contains(name), "{script}");
            script = script.replace(name, &guide.name(name));
        }
        let run = Command::new("bash")
            .args(["-euo", "pipefail", "-c", &script])
            .env("SANDHOG_REDIS_URL", &stack.redis)
            .output()
            .expect("bash starts");
        assert!(run.status.success(), "{script}: {run:?}");
        guide
    }

    fn name(&self, name: &str) -> String {
        format!("{name}-{}", self.project)
    }
}

impl Drop for Guide {
    fn drop(&mut self) {
        let [volume, keeper, worker] = GUIDE_NAMES.map(|name| self.name(name));
        for words in [
            &["rm", "--force", &worker, &keeper][..],
            &["volume", "rm", &volume],
        ] {
            // A test that failed shows its own error.
            drop(Command::new("docker").args(words).output());
        }
    }
}

#[test]
fn the_commands_of_the_guide_start_a_keeper_and_a_worker() {
    let stack = Stack::new(&[]);
    stack.compose(&["up", "--detach", "--build", "redis"]);
    stack.compose(&["build", "worker"]);
    let _guide = Guide::run(&stack);
    let run = environment::sandhog_command()
        .args(["run", "-c", "print(6*7)"])
        .env("SANDHOG_REDIS_URL", &stack.redis)
        .output()
        .expect("sandhog starts");
    assert_eq!(String::from_utf8_lossy(&run.stdout), "42\n", "{run:?}");
}

#[test]
fn a_password_is_asked_for() {
    let stack = Stack::new(&[]);
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
