//! The programs of docs/reference/protocol.md and docs/guides/agents.md, taken from the page and
//! run without changes.
//!
//! The shell and Python programs always run. Those for Node and Go run if the language is
//! installed; the test prints which ones ran.

use std::fs;
use std::path::Path;
use std::process::Command;

use sandhog_core::id::JobId;
use sandhog_core::outcome::Outcome;
use sandhog_testkit::environment;
use sandhog_testkit::namespace::{StreamItem, TestNamespace, decode};
use sandhog_testkit::page;
use sandhog_testkit::worker::WorkerSpec;

/// Returns all code blocks of one language on the page, joined and changed to use this test's
/// queue.
fn example(language: &str, space: &TestNamespace) -> String {
    let text = page::blocks(language, space).join("\n");
    let jobs = space.keys().jobs();
    for place in ["\"redis://127.0.0.1:6379\"", &jobs] {
        assert!(text.contains(place), "the {language} has no {place}");
    }
    text.replace("redis://127.0.0.1:6379", space.url())
}

fn has(program: &str, argument: &str) -> bool {
    Command::new(program)
        .arg(argument)
        .output()
        .is_ok_and(|run| run.status.success())
}

fn prints(command: &mut Command, expected: &str) {
    let run = command.output().expect("the interpreter starts");
    assert_eq!(
        (run.status.code(), String::from_utf8_lossy(&run.stdout)),
        (Some(0), expected.into()),
        "{}",
        String::from_utf8_lossy(&run.stderr)
    );
}

#[test]
fn the_lines_for_a_shell_work() {
    let space = TestNamespace::shared("shell");
    let _worker = WorkerSpec::of(&space).start();
    let page = page::blocks("console", &space).join("");
    // The id that the page shows differs in every run.
    let shown = page.lines().nth(1).expect("the page shows an answer");
    let shown = shown.trim_matches('"');
    let mut id: Option<String> = None;
    let mut printed = Vec::new();
    for line in page.lines().filter_map(|line| line.strip_prefix("$ ")) {
        let words = line.strip_prefix("redis-cli ").expect("only redis-cli");
        let words = id
            .as_ref()
            .map_or(words.to_owned(), |id| words.replace(shown, id));
        let run = Command::new("bash")
            .args(["-c", &format!("redis-cli -u {} {words}", space.url())])
            .output()
            .expect("bash starts");
        let text = String::from_utf8(run.stdout).expect("redis-cli prints text");
        assert!(run.status.success(), "{line}: {text}");
        id.get_or_insert(text.trim().to_owned());
        printed.push(text);
    }
    let [submitted, result, log, cancelled] = printed.as_slice() else {
        panic!("four lines, not {printed:?}");
    };
    let result = decode(result.trim().as_bytes());
    assert_eq!(result.id.as_str(), submitted.trim());
    assert_eq!(result.outcome, Outcome::Succeeded);
    assert_eq!(result.stdout.lossy(), "42\n");
    assert!(log.lines().any(|line| line == "42"), "{log}");
    assert!(
        cancelled.trim().parse::<JobId>().is_ok(),
        "an entry: {cancelled}"
    );
}

#[test]
fn the_python_example_works() {
    let space = TestNamespace::shared("python");
    let _worker = WorkerSpec::of(&space).start();
    prints(
        Command::new(environment::python_with_clients())
            .arg("-c")
            .arg(example("python", &space)),
        "succeeded 42\nTrue\n",
    );
}

/// Delays the page's loop until all of its jobs have ended and most of them have left the reply
/// stream, as happens with more jobs than the stream keeps.
const LATE_READER: &str = r#"
import redis, time
read_now = redis.Redis.xread
def read_late(self, streams, **options):
    for key in streams:
        while self.xinfo_stream(key)["entries-added"] < 20 if self.exists(key) else True:
            time.sleep(0.01)
        self.xtrim(key, maxlen=5, approximate=False)
    return read_now(self, streams, **options)
redis.Redis.xread = read_late
"#;

#[test]
fn the_python_loop_ends_though_the_stream_lost_results() {
    let space = TestNamespace::shared("python-late");
    let _worker = WorkerSpec::of(&space).start();
    prints(
        Command::new(environment::python_with_clients())
            .arg("-c")
            .arg(format!("{LATE_READER}{}", example("python", &space))),
        "succeeded 42\nTrue\n",
    );
}

#[test]
fn the_tool_for_agents_works() {
    let mut space = TestNamespace::shared("agents");
    let _worker = WorkerSpec::of(&space).start();
    let page = "docs/guides/agents.md";
    let program = page::page_blocks(page, "python", &space)
        .join("\n")
        .replace("redis://127.0.0.1:6379", space.url())
        .replace(
            "namespace=\"default\"",
            &format!("namespace=\"{}\"", space.namespace()),
        );
    let expected = page::page_blocks(page, "text", &space).join("\n");
    let python = environment::python_with_clients();
    prints(Command::new(python).arg("-c").arg(program), &expected);

    // The job of the abandoned call is cancelled.
    let events = space.keys().events();
    let mut last = "0".to_owned();
    let is_cancelled = |entry: &StreamItem| {
        entry.names().any(|name| name == "finished")
            && entry.text("finished").contains(" outcome cancelled")
    };
    loop {
        let entries = space.read_stream(&events, &last);
        if entries.iter().any(is_cancelled) {
            break;
        }
        last = entries.last().expect("a read returns entries").id.clone();
    }
}

#[test]
fn the_node_example_works_where_node_is() {
    let space = TestNamespace::shared("node");
    let text = example("javascript", &space);
    if !has("node", "--version") {
        eprintln!("no node is installed: its example was parsed but not run");
        return;
    }
    let _worker = WorkerSpec::of(&space).start();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("example.mjs");
    fs::write(&file, text).expect("a file can be written");
    std::os::unix::fs::symlink(
        environment::node_modules(),
        folder.path().join("node_modules"),
    )
    .expect("a link can be made");
    prints(Command::new("node").arg(file), "succeeded 42\n");
}

#[test]
fn the_go_example_works_where_go_and_its_client_are() {
    let space = TestNamespace::shared("go");
    let text = example("go", &space);
    // Debian's golang-github-gomodule-redigo-dev, used without modules, because their proxy is not
    // always reachable.
    let packages = Path::new("/usr/share/gocode");
    if !has("go", "version") || !packages.join("src/github.com/gomodule/redigo").exists() {
        eprintln!("no go with redigo is installed: its example was parsed but not run");
        return;
    }
    let _worker = WorkerSpec::of(&space).start();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("example.go");
    fs::write(&file, text).expect("a file can be written");
    prints(
        Command::new("go")
            .arg("run")
            .arg(file)
            .env("GO111MODULE", "off")
            .env("GOPATH", packages)
            .env("GOFLAGS", "")
            .env("GOCACHE", folder.path().join("cache")),
        "succeeded 42\n",
    );
}
