//! The wire contract from Python, with common packages.

use std::process::Command;

use sandhog_tests::given;
use sandhog_tests::space::Space;
use sandhog_tests::worker::WorkerSpec;

#[test]
fn json_messagepack_and_a_reply_stream_work_from_python() {
    let space = Space::shared("python");
    let _worker = WorkerSpec::of(&space).start();
    let run = Command::new(given::python_with_clients())
        .arg(given::checkout().join("tests/system/python/client.py"))
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
