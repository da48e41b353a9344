//! Secrets: granted by a policy, visible to the program alone, and stored nowhere else.

use std::fs;
use std::path::Path;

use sandhog_core::id::JobId;
use sandhog_core::job::Job;
use sandhog_core::outcome::Outcome;
use sandhog_testkit::containers::{Engine, WORKER_LABEL};
use sandhog_testkit::jobs::{argv, bash, python};
use sandhog_testkit::namespace::TestNamespace;
use sandhog_testkit::worker::{WorkerProcess, WorkerSpec};
use serde_json::json;

const VALUE: &str = "6f1c-hush-e0b7";

const POLICY: &str = r#"
[[allow]]
secrets = ["API_KEY"]
tenants = ["acme"]
images = ["python"]
"#;

/// Searches everything that a program can read, including its own memory, for the secret, and
/// returns the places. The source contains only the beginning of the secret and its reverse, so
/// that the program does not find itself.
const SEARCH: &str = r#"
import os

def holds(data, begin=b"6f1c-hush", backwards=b"7b0e-hsuh-c1f6"):
    at = data.find(begin)
    while at >= 0:
        if data[at : at + len(backwards)][::-1] == backwards:
            return True
        at = data.find(begin, at + 1)
    return False

found = []
def look(path):
    try:
        with open(path, "rb") as file:
            if holds(file.read()):
                found.append(path)
    except OSError:
        pass

for pid in filter(str.isdigit, os.listdir("/proc")):
    look(f"/proc/{pid}/environ")
    look(f"/proc/{pid}/cmdline")
for top in ("/work", "/tmp", "/dev/shm", "/run", "/etc", "/var/tmp", "/usr/lib/sandhog"):
    for folder, _, names in os.walk(top):
        for path in (os.path.join(folder, name) for name in names):
            if os.path.isfile(path):
                look(path)
looked = 0
with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", 0) as memory:
    for line in maps:
        start, end = (int(part, 16) for part in line.split()[0].split("-"))
        try:
            memory.seek(start)
            if holds(memory.read(end - start)):
                found.append(line)
            looked += 1
        except (OSError, ValueError, OverflowError):
            pass
[looked > 20, found]
"#;

/// Searches the memory of the zygote and of the clone that waits for the next job. Exits with 0 if
/// the secret is not there.
const SEARCH_OF_ZYGOTES: &str = r#"
import sys
value = ("6f1c-hush" + "-e0b7").encode()
zygotes = looked = found = 0
for pid in sys.argv[1:]:
    if b"zygote.py" not in open(f"/proc/{pid}/cmdline", "rb").read():
        continue
    zygotes += 1
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in maps:
            start, end = (int(part, 16) for part in line.split()[0].split("-"))
            try:
                memory.seek(start)
                found += memory.read(end - start).count(value)
                looked += 1
            except (OSError, ValueError, OverflowError):
                pass
sys.exit(100 if zygotes == 0 or looked < 20 else found)
"#;

/// Returns a folder with the secrets of a test's workers.
fn folder(policy: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    for (name, text) in [
        ("policy.toml", policy),
        ("API_KEY", VALUE),
        ("OTHER", VALUE),
    ] {
        fs::write(folder.path().join(name), format!("{text}\n")).expect("it can be written");
    }
    folder
}

fn worker(space: &TestNamespace, folder: &Path) -> WorkerProcess {
    WorkerSpec::of(space)
        .set("WORKER_SLOTS", "1")
        .set("WORKER_SECRETS", &folder.display().to_string())
        .set("LOG_FILTER", "trace")
        .start()
}

fn with_secret(job: Job) -> Job {
    Job {
        secrets: vec!["API_KEY".parse().expect("a literal name is valid")],
        ..job
    }
}

fn submit(space: &mut TestNamespace, job: &Job) -> JobId {
    space.submit_with(job, &[("tenant", "acme")])
}

#[test]
fn a_program_has_its_secrets_and_nothing_else_does() {
    let mut space = TestNamespace::shared("secrets");
    let folder = folder(POLICY);
    let worker = worker(&space, folder.path());
    let engine = Engine::connect();
    let length = VALUE.len().to_string();
    let cold = Job {
        env: [("PYTHONNODEBUGRANGES".to_owned(), String::new())].into(),
        ..python("import os\nprint(len(os.environ['API_KEY']))")
    };
    for (case, job) in [
        (
            "a clone",
            python("import os\nprint(len(os.environ['API_KEY']))"),
        ),
        ("an interpreter of its own", cold),
        ("a script", bash("echo ${#API_KEY}")),
        ("a program", argv(&["/bin/bash", "-c", "echo ${#API_KEY}"])),
        (
            "a child",
            python("import subprocess\nsubprocess.run(['/bin/bash', '-c', 'echo ${#API_KEY}'])"),
        ),
    ] {
        let id = submit(&mut space, &with_secret(job));
        let result = space.result(&id);
        assert_eq!(result.stdout.lossy().trim(), length, "{case}: {result:?}");
    }

    let found = submit(&mut space, &with_secret(python(SEARCH)));
    let found = space.result(&found).value.expect("it has a value");
    let places = found[1].as_array().expect("it is a list");
    assert!(!places.is_empty(), "the search finds what is there");

    let containers = engine.containers_with_label(WORKER_LABEL, worker.id());
    let [container] = containers.as_slice() else {
        panic!("one slot has the containers {containers:?}");
    };
    let id = submit(&mut space, &python(SEARCH));
    let next = space.result(&id);
    assert_eq!(
        next.value,
        Some(json!([true, []])),
        "what the next job finds: {next:?}"
    );
    assert_eq!(
        engine.containers_with_label(WORKER_LABEL, worker.id()),
        containers,
        "the next job ran where the others did"
    );

    let inspected = engine.inspect(container);
    assert!(inspected.contains(container.as_str()), "{inspected}");
    assert!(!inspected.contains(VALUE), "the engine knows the value");
    assert!(!inspected.contains("API_KEY"), "the engine knows the name");

    engine.run_beside("sandhog/python", SEARCH_OF_ZYGOTES, &engine.pids(container));

    let later = with_secret(python("1"));
    let _waits = space.submit_with(&later, &[("tenant", "acme"), ("delay_ms", "3600000")]);
    // The entry moves from the intake to the job's record in the meantime, and a read may miss it
    // in both.
    let names_it = |values: &[String]| values.iter().any(|value| value.contains("API_KEY"));
    let mut values = space.all_values();
    for _ in 0..100 {
        if names_it(&values) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
        values = space.all_values();
    }
    assert!(names_it(&values), "a job that waits names it: {values:?}");
    for value in values {
        assert!(!value.contains(VALUE), "Redis has it: {value:.300}");
    }
    let log = worker.log();
    assert!(log.len() > 1000, "the worker logs all it can: {log}");
    assert!(!log.contains(VALUE), "the worker's log has it");
}

#[test]
fn what_the_policy_does_not_give_is_a_dead_letter() {
    let mut space = TestNamespace::shared("secrets-refused");
    let folder = folder(POLICY);
    let _worker = worker(&space, folder.path());
    let named = |name: &str| Job {
        secrets: vec![name.parse().expect("a literal name is valid")],
        ..python("1")
    };
    for (case, job, tenant) in [
        ("another tenant", named("API_KEY"), "other"),
        ("there, and in no rule", named("OTHER"), "acme"),
        ("not there", named("NOTHING"), "acme"),
    ] {
        let name = job.secrets[0].to_string();
        let id = space.submit_with(&job, &[("tenant", tenant)]);
        let result = space.result(&id);
        assert_eq!(result.outcome, Outcome::Rejected, "{case}: {result:?}");
        let error = result.error.expect("it says why");
        assert_eq!(error.code, "secret_refused", "{case}");
        assert!(error.message.contains(&name), "{case}: {}", error.message);
        assert!(!error.message.contains(VALUE), "{case}");
    }
    let letters = space.keys().dead();
    let dead = space.stream_now(&letters);
    assert_eq!(dead.len(), 3);

    // An added rule applies from the next job on.
    let more =
        format!("{POLICY}[[allow]]\nsecrets = [\"OTHER\"]\ntenants = [\"*\"]\nimages = [\"*\"]\n");
    fs::write(folder.path().join("policy.toml"), more).expect("it can be written");
    let id = submit(&mut space, &named("OTHER"));
    assert_eq!(space.result(&id).outcome, Outcome::Succeeded);
}

#[test]
fn without_a_folder_no_job_has_a_secret() {
    let mut space = TestNamespace::shared("secrets-none");
    let _worker = WorkerSpec::of(&space).start();
    let id = submit(&mut space, &with_secret(python("1")));
    let error = space.result(&id).error.expect("it says why");
    assert_eq!(error.code, "secret_refused", "{error:?}");
}
