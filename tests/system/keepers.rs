//! Workers whose sandboxes are made by keepers: their own with Docker, and those of others.

use std::collections::HashMap;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;

use sandhog_core::job::Job;
use sandhog_core::outcome::Outcome;
use sandhog_testkit::containers::{Engine, WORKER_LABEL};
use sandhog_testkit::environment;
use sandhog_testkit::eventually::eventually;
use sandhog_testkit::jobs::{python, sleeping_job};
use sandhog_testkit::keeper_container::KeeperContainer;
use sandhog_testkit::namespace::{TestNamespace, WAIT_TIMEOUT};
use sandhog_testkit::worker::WorkerSpec;

/// A worker that starts keepers with Docker.
fn with_docker(space: &TestNamespace) -> WorkerSpec {
    WorkerSpec::of(space)
        .set("SANDBOX_UNIT", "sandbox")
        .set("SANDBOX_IMAGE_REFERENCE", &environment::image_reference())
}

#[test]
fn tenants_share_a_keeper_which_leaves_with_its_worker() {
    let mut space = TestNamespace::shared("keepers");
    let engine = Engine::connect();
    let mut worker = with_docker(&space).start();
    for n in 0..12 {
        let tenant = format!("tenant-{n}");
        let job = python(&format!("print({n})"));
        let id = space.submit_with(&job, &[("tenant", &tenant)]);
        let result = space.result(&id);
        assert_eq!(result.outcome, Outcome::Succeeded, "{result:?}");
        assert_eq!(result.stdout.lossy(), format!("{n}\n"));
    }
    let found = engine.containers_with_label(WORKER_LABEL, worker.id());
    assert_eq!(found.len(), 1, "one keeper and no other container");
    eventually(WAIT_TIMEOUT, || match worker.idle_sandboxes() {
        12.. => Ok(()),
        fewer => Err(format!("{fewer} idle sandboxes, not one for each tenant")),
    });
    worker.drain();
    let left = engine.containers_with_label(WORKER_LABEL, worker.id());
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_job_whose_keeper_was_killed_runs_again_with_another_one() {
    let mut space = TestNamespace::shared("keepers");
    let engine = Engine::connect();
    let worker = with_docker(&space).set("WORKER_SLOTS", "1").start();
    let routing = [("backoff_ms", "10"), ("max_attempts", "1")];
    let id = space.submit_with(&sleeping_job(2), &routing);
    let log = space.keys().log(&id);
    space.read_stream(&log, "0");
    for keeper in engine.wait_for(WORKER_LABEL, worker.id(), |found| !found.is_empty()) {
        engine.kill(&keeper);
    }
    let result = space.result(&id);
    assert_eq!(result.outcome, Outcome::Succeeded, "{result:?}");
    assert_eq!(result.attempts, 2, "the first one was lost");
    let next = space.run(&python("print('on')"));
    assert_eq!(next.outcome, Outcome::Succeeded, "{next:?}");
}

/// Runs `sandhog doctor` with these settings and returns its findings by subject.
fn findings_of_doctor(settings: &[(&str, &str)]) -> HashMap<String, serde_json::Value> {
    let images = tempfile::tempdir().expect("a temporary folder can be made");
    let mut command = environment::sandhog_command();
    command.args(["--json", "doctor"]);
    command.env("SANDHOG_REDIS_URL", environment::redis_url());
    command.env("SANDHOG_SANDBOX_IMAGES_DIR", images.path());
    for (name, value) in settings {
        command.env(format!("SANDHOG_{name}"), value);
    }
    let run = command.output().expect("sandhog starts");
    let printed = String::from_utf8(run.stdout).expect("sandhog prints text");
    let findings = printed.lines().map(|line| {
        let finding: serde_json::Value =
            serde_json::from_str(line).expect("each finding is one line of JSON");
        let subject = finding["subject"]
            .as_str()
            .expect("a finding has a subject");
        (subject.to_owned(), finding)
    });
    findings.collect()
}

#[test]
fn the_doctor_shows_each_keeper_and_what_to_do_about_a_dead_one() {
    let directory = tempfile::tempdir().unwrap();
    let _keeper = KeeperContainer::start(directory.path());
    // A socket on which nothing listens.
    drop(UnixListener::bind(directory.path().join("node.sock")).unwrap());
    let socket = directory.path().join("python.sock");
    eventually(WAIT_TIMEOUT, || {
        UnixStream::connect(&socket).map_err(|error| error.to_string())
    });
    let engine = format!("keepers://{}", directory.path().display());
    let found = findings_of_doctor(&[("SANDBOX_ENGINE", &engine)]);
    let python = &found["keeper python.sock"];
    assert_eq!(python["health"], "ok", "{python}");
    let detail = python["detail"].as_str().unwrap();
    for want in [
        "image python, build ",
        " of 512 MiB in use",
        "cgroup v",
        "sandboxes: ",
    ] {
        assert!(detail.contains(want), "{want}: {detail}");
    }
    let node = &found["keeper node.sock"];
    assert_eq!(node["health"], "fail", "{node}");
    assert!(
        node["hint"].as_str().unwrap().contains("runner keep"),
        "{node}"
    );
    assert!(
        !found.contains_key("engine runtime"),
        "the worker does not choose it"
    );
    assert_eq!(found["sandbox of python"]["health"], "ok");

    let missing = format!("{engine}/missing");
    let found = findings_of_doctor(&[("SANDBOX_ENGINE", &missing)]);
    assert_eq!(found["keepers"]["health"], "fail", "{found:?}");
    let engine = &found["engine"];
    let hint = engine["hint"].as_str().unwrap();
    assert!(
        hint.contains("runner keep") && !hint.contains("Docker"),
        "{hint}"
    );
}

#[test]
fn the_doctor_shows_the_keepers_that_it_started() {
    // Under this reference the doctor finds one image.
    let unique = uuid::Uuid::now_v7().simple().to_string();
    let reference = format!("sandhog-{unique}/python:latest");
    let image = environment::image_reference().replace("{name}", "python");
    let tag = |words: &[&str]| Command::new("docker").args(words).output().unwrap();
    assert!(tag(&["tag", &image, &reference]).status.success());
    let template = reference.replace("python", "{name}");
    let [kept, contained] = ["auto", "container"].map(|unit| {
        findings_of_doctor(&[
            ("SANDBOX_UNIT", unit),
            ("SANDBOX_IMAGE_REFERENCE", &template),
        ])
    });
    tag(&["rmi", &reference]);
    let keepers = |found: &HashMap<String, serde_json::Value>| {
        let all = found.keys();
        all.filter(|subject| subject.starts_with("keeper sandhog-doctor-"))
            .count()
    };
    assert_eq!(keepers(&kept), 1, "{kept:?}");
    assert_eq!(
        kept["sandboxes"]["detail"],
        "made by a keeper for each image"
    );
    assert_eq!(keepers(&contained), 0, "{contained:?}");
    assert_eq!(contained["sandboxes"]["detail"], "a container each");
}

/// Returns the command for a worker in a container that has the engine's socket, the network of the
/// host, and these further arguments of `docker run`.
fn worker_in_container(space: &TestNamespace, arguments: &[&str]) -> Command {
    let program = environment::sandhog();
    let variable = |name: &str, value: &str| format!("SANDHOG_{name}={value}");
    let mut command = Command::new("docker");
    command
        .args(["run", "--rm", "--network", "host"])
        .args(["--volume", "/var/run/docker.sock:/var/run/docker.sock"])
        .args(["--volume", &format!("{}:/sandhog:ro", program.display())])
        .args(["--env", &variable("NAMESPACE", space.namespace().as_str())])
        .args(["--env", &variable("REDIS_URL", space.url())])
        .args(["--env", &variable("WORKER_HTTP", "127.0.0.1:0")])
        .args(["--env", &variable("WORKER_SLOTS", "1")])
        .args(["--env", &variable("SANDBOX_UNIT", "sandbox")])
        .args([
            "--env",
            &variable("SANDBOX_IMAGE_REFERENCE", &environment::image_reference()),
        ])
        .args(arguments)
        .args(["--entrypoint", "/sandhog"])
        .args([
            &environment::image_reference().replace("{name}", "python"),
            "worker",
        ]);
    command
}

#[test]
fn a_worker_in_a_container_needs_a_directory_that_the_engine_has_too() {
    let mut space = TestNamespace::shared("keepers");
    let refused = worker_in_container(&space, &[]).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success(), "{said}");
    for want in [
        "sandbox.sockets_dir",
        "keepers:///directory",
        "/run/sandhog-",
    ] {
        assert!(said.contains(want), "{want}: {said}");
    }

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().display().to_string();
    let name = format!("sandhog-test-{}", space.namespace());
    let (mount, setting) = (
        format!("{path}:{path}"),
        format!("SANDHOG_SANDBOX_SOCKETS_DIR={path}"),
    );
    let arguments = ["--name", &name, "--volume", &mount, "--env", &setting];
    let mut worker = worker_in_container(&space, &arguments).spawn().unwrap();
    let result = space.run(&python("print('on')"));
    let stopped = Command::new("docker")
        .args(["stop", &name])
        .output()
        .unwrap();
    worker.wait().unwrap();
    assert_eq!(result.outcome, Outcome::Succeeded, "{result:?}");
    assert!(stopped.status.success(), "{stopped:?}");
    assert_eq!(
        files_in(directory.path()),
        0,
        "the worker removes its sockets"
    );
}

/// Returns the number of entries of a directory.
fn files_in(directory: &Path) -> usize {
    std::fs::read_dir(directory)
        .expect("the directory exists")
        .count()
}

#[test]
fn a_killed_worker_leaves_neither_its_keeper_nor_its_sockets() {
    let mut space = TestNamespace::shared("keepers");
    let engine = Engine::connect();
    let runtime = tempfile::tempdir().unwrap();
    let dirs = || {
        let entries = std::fs::read_dir(runtime.path()).unwrap();
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    };
    let spec = |space: &TestNamespace| {
        let runtime = runtime.path().display().to_string();
        with_docker(space).environment("XDG_RUNTIME_DIR", &runtime)
    };
    let mut worker = spec(&space).start();
    let id = space.submit(&sleeping_job(600));
    let log = space.keys().log(&id);
    space.read_stream(&log, "0");
    let keepers = engine.containers_with_label(WORKER_LABEL, worker.id());
    assert_eq!(keepers.len(), 1, "{keepers:?}");
    let left = dirs();
    assert_eq!(left.len(), 1, "{left:?}");

    worker.kill9();
    // No other worker runs that could remove the container.
    let remaining = engine.wait_for(WORKER_LABEL, worker.id(), <[_]>::is_empty);
    assert_eq!((remaining.len(), dirs()), (0, left.clone()));
    let next = spec(&space).start();
    let found = dirs();
    assert!(!found.contains(&left[0]), "{found:?}");
    assert_eq!(found.len(), 1, "the directory of {}: {found:?}", next.id());
}

#[test]
fn each_job_may_have_a_sandbox_of_its_own() {
    for unit in ["container", "sandbox"] {
        let mut space = TestNamespace::shared("keepers");
        let worker = with_docker(&space)
            .set("SANDBOX_UNIT", unit)
            .set("POOL_REUSE", "never")
            .start();
        for n in 0..5 {
            let result = space.run(&python(&format!("print({n})")));
            assert_eq!(result.outcome, Outcome::Succeeded, "{unit}: {result:?}");
        }
        drop(worker);
    }
}

#[test]
fn jobs_wait_while_the_keeper_of_their_image_is_away() {
    let mut space = TestNamespace::shared("keepers");
    let directory = tempfile::tempdir().unwrap();
    let keeper = KeeperContainer::start(directory.path());
    let _worker = WorkerSpec::of(&space)
        .set(
            "SANDBOX_ENGINE",
            &format!("keepers://{}", directory.path().display()),
        )
        .start();
    let result = space.run(&python("print('here')"));
    assert_eq!(result.outcome, Outcome::Succeeded, "{result:?}");

    drop(keeper);
    // No attempt may be lost.
    let id = space.submit_with(&python("print('back')"), &[("max_attempts", "1")]);
    let misspelt = Job {
        image: "pyton".parse().unwrap(),
        ..python("print()")
    };
    let refused = space.submit(&misspelt);
    let events = space.keys().events();
    let mut last = "0".to_owned();
    let mut given_back = 0;
    while given_back < 2 {
        for entry in space.read_stream(&events, &last) {
            last.clone_from(&entry.id);
            let retried = entry.bytes("retried").unwrap_or_default();
            let of_job = format!("id {id} ");
            given_back += usize::from(retried.starts_with(of_job.as_bytes()));
        }
    }
    let _keeper = KeeperContainer::start(directory.path());
    let result = space.result(&id);
    assert_eq!(result.outcome, Outcome::Succeeded, "{result:?}");
    assert_eq!(result.attempts, 1, "the others are not counted");
    let result = space.result(&refused);
    assert_eq!(result.outcome, Outcome::Rejected, "{result:?}");
    assert_eq!(result.error.unwrap().code, "unknown_image");
}
