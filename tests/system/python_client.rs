//! The wire contract from Python, with common packages.

use std::process::Command;

use sandhog_testkit::environment;
use sandhog_testkit::namespace::TestNamespace;
use sandhog_testkit::worker::WorkerSpec;

#[test]
fn json_messagepack_and_a_reply_stream_work_from_python() {
    let space = TestNamespace::shared("python");
    let _worker = WorkerSpec::of(&space).start();
    let run = Command::new(environment::python_with_clients())
        .arg(environment::checkout().join("tests/system/python/client.py"))
        .arg(space.url())
        .arg(space.namespace().as_str())
        .output()
        .expect("python starts");
    assert_eq!(
        (run.status.code(), String::from_utf8_lossy(&run.stdout)),
        (Some(0), "all as expected\n".into()),
        "{}",
        String::from_utf8_lossy(&run.stderr)
    );
}
